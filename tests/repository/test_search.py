"""Conditions: read strictly, never SQL, and true for exactly those versions that a plain filter in Python finds."""

from __future__ import annotations

import json
import operator
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.errors import InvalidInput
from modelyard.refs import Version
from modelyard.repository import ModelInfo, ModelVersion
from modelyard.repository.index import rows, search
from modelyard.repository.index.conditions import ordering, parse_condition
from modelyard.repository.index.facts import order_key
from modelyard.repository.index.file import IndexFile
from modelyard.repository.index.search import Query
from modelyard.repository.manifest import content_digest

PATHS = ("task", "license", "parameters", "a", "a.b", "metadata.license", "name")
TEXTS = ("mit", "MIT", "mit-0", "7", "7.0", "true", "É", "x y", "%", "_", "'; DROP TABLE versions --", 'a"b', "~")
NUMBERS = (0, 7, 7.0, -1, 0.9, 1e9, 10**30)

scalars = st.sampled_from(TEXTS) | st.sampled_from(NUMBERS) | st.none() | st.booleans()
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.sampled_from("abc"), scalars, max_size=2)
infos = st.builds(
    ModelInfo, task=st.sampled_from((None, "mit", "x y")), license=st.sampled_from((None, "mit", "MIT")),
    parameters=st.sampled_from((None, 7, 10**9)),
)  # fmt: skip
written = st.sampled_from(TEXTS).filter(lambda text: not text.startswith('"')) | st.sampled_from(NUMBERS).map(str)
quoted = st.sampled_from(TEXTS).map(json.dumps)
models = st.lists(st.tuples(infos, st.dictionaries(st.sampled_from(("a", "license", "b")), values)), max_size=5)
conditions = st.lists(
    st.tuples(st.sampled_from(PATHS), st.sampled_from(("=", "!=", "<", "<=", ">", ">=", "~")), written | quoted),
    min_size=1, max_size=3,
)  # fmt: skip


def version(number: int, info: ModelInfo, metadata: dict[str, Any]) -> ModelVersion:
    return ModelVersion(
        id=f"{number:016x}",
        name=TEXTS[number],
        version=Version(1, number, 0),
        digest=content_digest(()),
        files=(),
        created_at=datetime(2026, 1, 1 + number, tzinfo=UTC),
        created_by="me",
        model=info,
        metadata=metadata,
    )


def indexed(versions: Sequence[ModelVersion]) -> IndexFile:
    file = IndexFile(None)
    file.write(lambda db: rows.put_versions(db, versions))
    return file


def found(file: IndexFile, *where: str, **options: Any) -> list[int]:
    query = Query(tuple(map(parse_condition, where)), **options)
    return [each.version.minor for each in file.read(lambda db: search.search(db, query, {}))]


# The same in plain Python: every value of a path, and a comparison with each.

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def plain(version: ModelVersion, path: str, comparison: str, text: str) -> bool:
    has = list(_values(version, path))
    number = None
    if text.startswith('"'):
        text = json.loads(text)
    elif path != "name" and set(text) <= set(string.digits + "+-.e") and text != "-":
        number = float(text)
    equal = [value for value in has if value == text or (number is not None and value == number)]
    if comparison == "=":
        return bool(equal)
    if comparison == "!=":
        return bool(has) and not equal
    if comparison == "~":
        return any(_lower(text) in _lower(value) for value in has if isinstance(value, str))
    wanted = text if number is None else number
    return any(COMPARE[comparison](value, wanted) for value in has if isinstance(value, str) == isinstance(wanted, str))


def _values(version: ModelVersion, path: str) -> Iterator[str | float]:
    if path == "name":
        yield version.name
        return
    if path in ("task", "license", "parameters"):
        inspected = getattr(version.model, path)
        yield from _leaves(version.metadata.get(path) if inspected is None else inspected)
        return
    value: Any = version.metadata
    for key in path.removeprefix("metadata.").split("."):
        inner = value if isinstance(value, list) else [value]
        value = [each[key] for each in inner if isinstance(each, dict) and key in each]
    yield from _leaves(value)


def _leaves(value: Any) -> Iterator[str | float]:
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, bool):
        yield str(value).lower()
    elif isinstance(value, str | int | float):
        yield value


def _lower(text: str) -> str:
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


@given(models, conditions)
@example([(ModelInfo(), {"a": 10**30})], [("a", "<", "1e9")])
def test_a_search_finds_what_a_plain_filter_finds(
    made: list[tuple[ModelInfo, dict[str, Any]]], where: list[tuple[str, str, str]]
) -> None:
    versions = [version(number, info, metadata) for number, (info, metadata) in enumerate(made)]
    file = indexed(versions)

    expected = [each.version.minor for each in versions if all(plain(each, *condition) for condition in where)]

    assert sorted(found(file, *("".join(condition) for condition in where))) == expected


@given(models, st.sampled_from(("a", "license", "parameters", "created", "size", "version")), st.booleans())
def test_an_order_keeps_every_version_and_puts_those_without_a_value_last(
    made: list[tuple[ModelInfo, dict[str, Any]]], path: str, down: bool
) -> None:
    versions = [version(number, info, metadata) for number, (info, metadata) in enumerate(made)]
    order = ordering(f"-{path}" if down else path)

    listed = found(indexed(versions), order=order)

    assert sorted(listed) == list(range(len(versions)))
    if path in ("a", "license", "parameters"):
        has = [bool(list(_values(versions[minor], path))) for minor in listed]
        assert has == sorted(has, reverse=True)
    else:
        assert path == "size" or listed == sorted(listed, reverse=down)


def test_order_and_limit() -> None:
    file = indexed([version(n, ModelInfo(), {"metrics": {"f1": f1}}) for n, f1 in enumerate((0.5, 0.9, 0.7, None))])
    assert found(file, order=ordering("metrics.f1")) == [0, 2, 1, 3]
    assert found(file, order=ordering("-metrics.f1")) == [1, 2, 0, 3]
    assert found(file, order=ordering("-metrics.f1"), limit=2) == [1, 2]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("version>=v1.1.0", [1, 2]),
        ("version!=1.1.0", [0, 2]),
        ("version in v1.0.0, 1.2.0", [0, 2]),
        ("version~.2.", [2]),
        ("created>=2026-01-02", [1, 2]),
        ("created_by=me", [0, 1, 2]),
        ("size>=0", [0, 1, 2]),
        ("size!=0", []),
        ("digest~sha256", [0, 1, 2]),
        ("lineage.base_model=bert:v1.0.0", [1]),
        ("metrics.f1 >= 0.5", [0, 1]),
        ("metadata.metrics.f1=0.5", [0]),
        ("labels=cat", [0]),
        ("labels!=cat", []),
        ("labels in dog,bird", [0]),
        ("a b=c", [2]),
        ("eval/f1=true", [2]),
        ("tag=none", []),
        ("tag!=none", [0, 1, 2]),
        ("tag in latest,x", [0, 1, 2]),
    ],
)
def test_what_can_be_asked_for(where: str, expected: list[int]) -> None:
    versions = [
        version(0, ModelInfo(), {"metrics": {"f1": 0.5}, "labels": ["cat", "dog"]}),
        replace(version(1, ModelInfo(), {"metrics": {"f1": 1}}), lineage={"base_model": "bert:v1.0.0"}),
        version(2, ModelInfo(), {"metrics": {"f1": "0.9"}, "a b": "c", "eval/f1": True}),
    ]
    file = indexed([replace(each, name=f"m-{number}") for number, each in enumerate(versions)])
    assert sorted(found(file, where)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "task",
        "=",
        "task=",
        "=mit",
        "task>",
        "license in ",
        "license in a,,b",
        'a="b',
        'a="b"c',
        "size=big",
        "f1=>0.9",
        "a==b",
        "a><b",
        " ~x",
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_condition(text)
    assert "\n" not in str(caught.value) and caught.value.remedy


ONE = indexed([version(0, ModelInfo(), {})])


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = parse_condition(text)
    except InvalidInput:
        return
    assert len(ONE.read(lambda db: search.search(db, Query((condition,)), {}))) <= 1


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="as a version"):
        parse_condition("version>=2")


def test_paths_that_no_version_has() -> None:
    file = indexed([version(0, ModelInfo(task="x"), {"f1": 1})])
    wanted = [parse_condition(each) for each in ("task=x", "f1>0", "liscense=mit", "tag=x", "name~a", "license=mit")]
    assert file.read(lambda db: search.absent(db, wanted)) == ["liscense", "license"]


def test_metadata_without_end_is_searched_to_some_depth() -> None:
    file = indexed([version(0, ModelInfo(), {"first": 1, "long": "x" * 5000, "many": list(range(5000))})])
    assert found(file, "first=1") == found(file, "many=5") == found(file, "long~xxx") == [0]
    assert found(file, "many=4999") == []


labels = st.lists(
    st.integers(0, 20).map(str) | st.from_regex(r"[0-9]{0,2}[A-Za-z-][0-9A-Za-z-]{0,2}", fullmatch=True), max_size=3
)
versions = st.builds(
    Version, st.integers(0, 12), st.integers(0, 12), st.sampled_from((0, 9, 10, 10**18 - 1)), labels.map(tuple)
)


@given(versions, versions)
def test_texts_sort_as_versions_do(one: Version, other: Version) -> None:
    assert (order_key(one) < order_key(other)) == (one < other)
