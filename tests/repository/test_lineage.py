"""What differs between versions, where they come from, what was made of them: on values, without a store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from modelyard.errors import InvalidInput, NotFound
from modelyard.refs import ModelRef, Version
from modelyard.repository import ModelInfo, ModelVersion
from modelyard.repository.comparison import Difference, compare, flatten
from modelyard.repository.lineage import ancestors, descendants, pinned
from modelyard.repository.manifest import Artifact, content_digest


def version(name: str, *, number: int = 1, content: str = "a", **fields: Any) -> ModelVersion:
    files = (Artifact("weights.bin", "key", 1, content * 64),)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return ModelVersion("id", name, Version(number, 0, 0), content_digest(files), files, at, "me", **fields)


class Yard:
    """Versions that can be resolved."""

    def __init__(self, *versions: ModelVersion) -> None:
        self.versions = versions

    def made_of(self, ref: str) -> list[str]:
        return [str(each.ref) for each in self.versions if each.lineage.get("base_model") == ref]

    def resolve(self, ref: ModelRef) -> ModelVersion:
        for each in reversed(self.versions):
            if each.name == ref.name and ref.version in (None, each.version) and ref.digest in (None, each.digest):
                return each
        raise NotFound(f"there is no {ref}")


def test_every_kind_of_difference() -> None:
    old = version("m", model=ModelInfo(task="fill-mask"), metadata={"metrics": {"f1": 0.5}, "n": 1, "same": [1]})
    new = replace(
        version("m", number=2, content="b", model=ModelInfo(parameters=7), lineage={"base_model": "x"}),
        metadata={"metrics": {"f1": 0.9}, "n": True, "same": [1]},
    )
    assert compare(old, new) == [
        Difference("file", "weights.bin", {"size": 1, "sha256": "a" * 64}, {"size": 1, "sha256": "b" * 64}),
        Difference("model", "parameters", None, 7),
        Difference("model", "task", "fill-mask", None),
        Difference("metadata", "metrics.f1", 0.5, 0.9),
        Difference("metadata", "n", 1, True),
        Difference("lineage", "base_model", None, "x"),
    ]
    assert compare(old, old) == []


def test_nested_values_become_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": {}}) == {"a.b.c": 1, "a.d": [{"e": 2}], "f": {}}


def test_a_base_model_of_this_repository_is_pinned() -> None:
    base = version("base")
    yard = Yard(base)
    for written in ("base", "base:v1.0.0", f"base@{base.digest}"):
        assert pinned({"base_model": written, "code": "abc"}, yard.resolve) == {
            "base_model": str(base.ref),
            "code": "abc",
        }
    elsewhere = f"other:v1.0.0@{base.digest}"
    for written in ("hf://org/model@main", elsewhere):
        assert pinned({"base_model": written}, yard.resolve) == {"base_model": written}
    with pytest.raises(NotFound):
        pinned({"base_model": "base:v2.0.0"}, yard.resolve)
    with pytest.raises(InvalidInput, match="is not text"):
        pinned({"dataset": 7}, yard.resolve)  # type: ignore[dict-item]


def test_up_and_down() -> None:
    base = version("base", lineage={"base_model": "hf://org/model"})
    tuned = version("tuned", content="b", lineage={"base_model": str(base.ref), "dataset": "d:v1.0.0"})
    small = version("small", content="c", lineage={"base_model": str(tuned.ref)})
    other = version("other", content="d", lineage={"dataset": str(base.ref)})
    yard = Yard(base, tuned, small, other)
    assert [(link.depth, link.kind, link.parent) for link in ancestors(small, yard.resolve)] == [
        (1, "base_model", str(tuned.ref)),
        (2, "base_model", str(base.ref)),
        (2, "dataset", "d:v1.0.0"),
        (3, "base_model", "hf://org/model"),
    ]
    assert [(link.depth, link.child) for link in descendants(base, yard.made_of)] == [
        (1, str(tuned.ref)),
        (2, str(small.ref)),
    ]


def test_a_circle_ends() -> None:
    """A digest can't name itself, but a name without one can."""
    a, b = version("a", lineage={"base_model": "b"}), version("b", content="b", lineage={"base_model": "a"})
    assert len(list(ancestors(a, Yard(a, b).resolve))) == 2
    a, b = (replace(a, lineage={"base_model": str(b.ref)}), replace(b, lineage={"base_model": str(a.ref)}))
    assert len(list(descendants(a, Yard(a, b).made_of))) == 2
