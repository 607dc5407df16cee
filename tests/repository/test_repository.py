"""Names, versions, tags and their history, on a store of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import AlreadyExists, IntegrityError, InvalidInput, ModelyardError, NotFound, Refused
from modelyard.refs import ModelRef, Version
from modelyard.repository import Inspection, ModelRepository, ModelVersion
from modelyard.repository.index import Index
from modelyard.repository.manifest import ModelInfo, Signature, Tensor
from modelyard.repository.registration import draft
from modelyard.store import Memory, Store

METADATA = {"metrics": {"accuracy": 0.971}, "ü": ["“text”", None, True, 1, 1.0, 2**70], "training_data": "digits"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights" * 1000)
    (folder / "deep/config.json").write_text("{}")
    return folder


@pytest.fixture
def small(open_repository: Callable[..., ModelRepository]) -> ModelRepository:
    return open_repository(Memory())


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_goes_in_comes_out(repository: ModelRepository, model: Path) -> None:
    registered = repository.register_model("digits", "1.2.0", str(model), METADATA, lineage={"code": "abc"})
    folder, metadata = repository.get_model("digits", "v1.2.0")
    assert content(folder) == content(model)
    assert json.dumps(metadata) == json.dumps(METADATA)
    assert repository.resolve("digits:1.2.0") == registered
    assert (registered.created_by, registered.lineage) == ("tester", {"code": "abc"})
    assert [file.path for file in registered.files] == ["deep/config.json", "weights.bin"]
    assert registered.size == 7002
    assert repository.verify(registered) == []


def test_the_layout_is_readable_by_other_tools(repository: ModelRepository, model: Path) -> None:
    registered = repository.register_model("ns/digits", "v1.0.0", model, METADATA)
    storage = repository.storage
    assert storage.get_json("models/ns/digits/v1.0.0/metadata.json") == METADATA
    for file in registered.files:
        assert file.key.startswith("models/ns/digits/v1.0.0/")
        assert file.key.endswith(f"/{file.path}")
    assert [found.key for found in storage.objects("versions")] == ["versions/ns/digits/v1.0.0.json"]
    assert list(storage.objects("uploads")) == []


def test_versions_are_ordered_as_semver_orders_them(repository: ModelRepository, model: Path) -> None:
    for version in ("1.10.0", "1.9.0", "2.0.0-rc.10", "2.0.0-rc.9", "2.0.0-alpha"):
        repository.register_model("digits", version, model)
    assert repository.list_models("digits") == ["v1.9.0", "v1.10.0", "v2.0.0-alpha", "v2.0.0-rc.9", "v2.0.0-rc.10"]
    for ref in ("digits", "digits:latest", "digits:main"):
        assert str(repository.resolve(ref).version) == "v1.10.0"
    assert repository.tags("digits") == {"latest": "v1.10.0"}


def test_prereleases_alone_are_no_latest(small: ModelRepository, model: Path) -> None:
    small.register_model("digits", "1.0.0-rc.1", model)
    with pytest.raises(NotFound, match="digits has no release, only prereleases; name a version"):
        small.resolve("digits")
    assert small.tags("digits") == {}


def test_names_inside_names_do_not_mix(repository: ModelRepository, model: Path) -> None:
    repository.register_model("ns", "1.0.0", model, tags=["champion"])
    repository.register_model("ns/0abc", "2.0.0", model, tags=["challenger"])
    assert repository.list_models() == ["ns", "ns/0abc"]
    assert repository.list_models("ns") == ["v1.0.0"]
    assert repository.tags("ns") == {"latest": "v1.0.0", "champion": "v1.0.0"}
    assert repository.tags("ns/0abc") == {"latest": "v2.0.0", "challenger": "v2.0.0"}


def test_a_tag_moves_and_goes_back(repository: ModelRepository, model: Path) -> None:
    repository.register_model("digits", "1.0.0", model, tags=["champion"])
    repository.register_model("digits", "1.1.0", model, METADATA)
    repository.tag("digits", "champion", "v1.1.0", reason="better")
    assert str(repository.resolve("digits:champion").version) == "v1.1.0"
    assert repository.undo_tag("digits", "champion", reason="slower") == "v1.0.0"
    assert repository.undo_tag("digits", "champion") == "v1.1.0"
    repository.tag("digits", "second", "champion")
    assert repository.undo_tag("digits", "second") is None
    assert repository.tags("digits") == {"latest": "v1.1.0", "champion": "v1.1.0"}
    history = repository.history("digits")
    assert [(change.number, change.by, change.why) for change in history] == [
        (1, "tester", "digits is a new model"),
        (2, "tester", "champion → v1.0.0: registered with it"),
        (3, "tester", "champion → v1.1.0: better"),
        (4, "tester", "undo champion: slower"),
        (5, "tester", "undo champion"),
        (6, "tester", "second → v1.1.0"),
        (7, "tester", "undo second"),
    ]
    assert [change.tags.keys() for change in history] == [set()] + 4 * [{"champion"}] + [
        {"champion", "second"},
        {"champion"},
    ]


def test_a_tag_that_moved_in_between_is_not_undone(
    small: ModelRepository, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        small.register_model("digits", version, model, {"version": version})
    small.tag("digits", "champion", "v1.0.0")
    small.tag("digits", "champion", "v1.1.0")
    objects, calls = small.storage.objects, []

    def overtaken(prefix: str) -> Any:
        calls.append(prefix)
        if len(calls) == 2:  # the history was read, the change begins
            small.tag("digits", "champion", "v1.2.0")
        return objects(prefix)

    monkeypatch.setattr(small.storage, "objects", overtaken)
    with pytest.raises(Refused, match="was moved in between; look again, then undo"):
        small.undo_tag("digits", "champion")
    assert small.tags("digits")["champion"] == "v1.2.0"


def test_a_tag_holds_on_to_its_bytes(small: ModelRepository, model: Path) -> None:
    """Should a version ever be replaced behind modelyard's back, a tag does not follow to other content."""
    small.register_model("digits", "1.0.0", model, tags=["champion"])
    small.storage.delete(["versions/digits/v1.0.0.json"])
    (model / "weights.bin").write_bytes(b"other")
    small.register_model("digits", "1.0.0", model)
    with pytest.raises(IntegrityError, match=r"digits:v1\.0\.0 has the digest sha256:\w+, not sha256:"):
        small.resolve("digits:champion")


def test_a_reference_with_a_digest_means_only_that(small: ModelRepository, model: Path) -> None:
    registered = small.register_model("digits", "1.0.0", model)
    assert small.resolve(str(registered.ref)) == registered
    wrong = f"digits:v1.0.0@sha256:{'0' * 64}"
    with pytest.raises(IntegrityError, match=f"has the digest {registered.digest}, not sha256:0000"):
        small.resolve(wrong)


def test_staging_and_production_are_read_from_the_environments(repository: ModelRepository, model: Path) -> None:
    registered = repository.register_model("digits", "1.0.0", model, tags=["staging"])
    wish = repository.environment("staging").get("digits")
    assert (wish.serving, str(wish.target), wish.outcome) == (None, "v1.0.0", "running")
    with pytest.raises(NotFound, match="digits has no tag 'staging'; use `modelyard stage`"):
        repository.resolve("digits:staging")
    repository.environment("staging").update("digits", lambda d: d.finished(), by="reconciler", why="ready")
    assert repository.resolve("digits:staging") == registered
    assert repository.tags("digits") == {"latest": "v1.0.0", "staging": "v1.0.0"}


BAD_CALLS: dict[str, tuple[Callable[[ModelRepository, Path], object], type[ModelyardError], str]] = {
    "unknown model": (lambda r, m: r.resolve("nope"), NotFound, "there is no model 'nope' in memory://; see"),
    "unknown model, by version": (lambda r, m: r.get_model("nope", "v1.0.0"), NotFound, "there is no model 'nope'"),
    "unknown model, listed": (lambda r, m: r.list_models("nope"), NotFound, "there is no model 'nope'"),
    "unknown model, tags": (lambda r, m: r.tags("nope"), NotFound, "there is no model 'nope'"),
    "unknown model, history": (lambda r, m: r.history("nope"), NotFound, "there is no model 'nope'"),
    "unknown version": (lambda r, m: r.resolve("digits:9.0.0"), NotFound, "has no version v9.0.0; the newest are v1.0"),
    "unknown tag": (lambda r, m: r.resolve("digits:best"), NotFound, "has no tag 'best'; its tags are latest"),
    "undo of an unknown tag": (lambda r, m: r.undo_tag("digits", "best"), NotFound, "digits never had the tag 'best'"),
    "other spelling": (lambda r, m: r.resolve("Digits"), NotFound, "there is no model 'Digits'"),
    "other spelling, new": (lambda r, m: r.register_model("DIGITS", "2.0.0", m), AlreadyExists, "by case alone; write"),
    "tag latest": (lambda r, m: r.tag("digits", "latest", "v1.0.0"), Refused, "it is always the highest release"),
    "tag production": (lambda r, m: r.tag("digits", "production", "v1.0.0"), Refused, "use `modelyard promote`"),
    "undo production": (lambda r, m: r.undo_tag("digits", "production"), Refused, "use `modelyard promote`"),
    "register as production": (
        lambda r, m: r.register_model("digits", "2.0.0", m, tags=["production"]),
        Refused,
        "use `modelyard promote`",
    ),
    "bad name": (lambda r, m: r.register_model("../x", "1.0.0", m), InvalidInput, "'../x' is not a model name"),
    "bad version": (lambda r, m: r.register_model("digits", "1.0", m), InvalidInput, "it is not a semantic version"),
    "missing folder": (lambda r, m: r.register_model("new", "1.0.0", m / "gone"), NotFound, "there is no file or fold"),
    "metadata that is not JSON": (
        lambda r, m: r.register_model("new", "1.0.0", m, {"a": {1}}),
        InvalidInput,
        "the metadata can't be written as JSON",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_say_what_to_do_and_change_nothing(case: str, small: ModelRepository, model: Path) -> None:
    call, kind, message = BAD_CALLS[case]
    small.register_model("digits", "1.0.0", model)
    before = sorted((found.key, found.size) for found in small.storage.objects(""))
    with pytest.raises(kind) as failed:
        call(small, model)
    assert message in str(failed.value)
    assert "\n" not in str(failed.value)
    assert sorted((found.key, found.size) for found in small.storage.objects("")) == before


def test_pickles_need_somebody_who_vouches(open_repository: Callable[..., ModelRepository], model: Path) -> None:
    found = Inspection(refused={"weights.bin": "a pickle (a pickle opcode)"})
    repository = open_repository(Memory(), inspect=lambda folder: found)
    with pytest.raises(InvalidInput, match=r"weights\.bin holds a pickle \(a pickle opcode\).*--trust-pickle"):
        repository.register_model("digits", "1.0.0", model)
    assert repository.list_models() == []
    registered = repository.register_model("digits", "1.0.0", model, trust_pickle="trained here")
    assert repository.resolve("digits").trusted_pickle == registered.trusted_pickle == "trained here"


def test_a_vow_without_pickles_is_not_kept(small: ModelRepository, model: Path) -> None:
    assert small.register_model("digits", "1.0.0", model, trust_pickle="trained here").trusted_pickle is None


def test_a_manifest_nobody_can_read_is_named(small: ModelRepository, model: Path) -> None:
    registered = small.register_model("digits", "1.0.0", model)
    key = "versions/digits/v1.0.0.json"
    good = small.storage.get(key)
    for damaged in (
        b"{",
        b"[]",
        good.replace(b"weights.bin", b"weighty.bin"),
        good.replace(b'"schema": 1', b'"schema": 99'),
        good.replace(b'"v1.0.0"', b'"one"'),
        good.replace(b'"sha256:', b'"md5:'),
    ):
        assert damaged != good
        small.storage.put(key, damaged)
        with pytest.raises(IntegrityError, match=r"the manifest versions/digits/v1\.0\.0\.json in memory://"):
            small.resolve(registered.ref)


def test_signature_survives(open_repository: Callable[..., ModelRepository], model: Path, store: Store) -> None:
    info = ModelInfo(
        task="image-classification",
        languages=("en", "de"),
        signature=Signature((Tensor("x", "FP32", (-1, 64)),), (Tensor("y", "FP32", (-1, 10)),)),
    )
    repository = open_repository(store, inspect=lambda folder: Inspection(info))
    repository.register_model("digits", "1.0.0", model)
    assert repository.resolve("digits").model == info


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_metadata_survives_verbatim(metadata: dict[str, Any]) -> None:
    new = draft("m", Version(1, 0, 0), Inspection(), by="me", metadata=metadata, lineage={}, trusted_pickle=None)
    read = ModelVersion.from_json(new.to_json(), where="here")
    assert read == new
    assert json.dumps(read.metadata) == json.dumps(metadata)


def test_deep_metadata_is_read_back_or_refused(small: ModelRepository, model: Path) -> None:
    for depth in (100, 190, 300, 900, 100_000):
        nested: Any = 1
        for _ in range(depth):
            nested = [nested]
        try:
            small.register_model("digits", f"{depth}.0.0", model, {"nested": nested})
        except InvalidInput:
            with pytest.raises(NotFound):
                small.resolve(ModelRef("digits", Version(depth, 0, 0)))
        else:
            assert small.resolve(ModelRef("digits", Version(depth, 0, 0))).metadata == {"nested": nested}


def test_pull_makes_a_copy_of_ones_own(small: ModelRepository, model: Path, tmp_path: Path) -> None:
    registered = small.register_model("digits", "1.0.0", model)
    (tmp_path / "empty").mkdir()
    for name in ("new", "not/yet/there", "empty"):
        pulled = small.pull(registered, tmp_path / name)
        assert content(pulled) == content(model)
        (pulled / "weights.bin").write_bytes(b"mine")
    assert small.verify(registered) == []
    assert content(small.fetch(registered)) == content(model)


def test_pull_into_the_current_folder(
    small: ModelRepository, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = small.register_model("digits", "1.0.0", model)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    small.pull(registered, Path())
    assert content(tmp_path / "here") == content(model)


def test_pull_overwrites_nothing(small: ModelRepository, model: Path, tmp_path: Path) -> None:
    registered = small.register_model("digits", "1.0.0", model)
    (tmp_path / "file").touch()
    for taken in (model, tmp_path / "file"):
        with pytest.raises(AlreadyExists, match="exists and is not an empty folder; give another destination"):
            small.pull(registered, taken)
    with pytest.raises(InvalidInput, match=r"can't write .*file/below: Not a directory"):
        small.pull(registered, tmp_path / "file" / "below")


def test_resolving_reads_the_journal_then_the_manifest(
    small: ModelRepository, model: Path, requests: list[tuple[str, str]]
) -> None:
    small.register_model("digits", "1.0.0", model, tags=["best"])
    journal = [("objects", "catalog/digits"), ("get", "catalog/digits/999999999997.json")]
    for ref, listed in (("digits:v1.0.0", []), ("digits:best", []), ("digits", [("objects", "versions/digits/")])):
        requests.clear()
        small.resolve(ref)
        assert requests == [*journal, *listed, ("get", "versions/digits/v1.0.0.json")]


def test_with_an_index_the_manifest_is_read_once(
    open_repository: Callable[..., ModelRepository], model: Path, tmp_path: Path, requests: list[tuple[str, str]]
) -> None:
    store = Memory()
    indexed = open_repository(store, index=Index(store, tmp_path / "index"))
    indexed.register_model("digits", "1.0.0", model, tags=["best"])
    found = indexed.resolve("digits:best")
    requests.clear()
    assert indexed.resolve("digits:best") == found
    assert requests == [("objects", "catalog/digits"), ("get", "catalog/digits/999999999997.json")]
    assert indexed.list_models() == ["digits"]
    indexed.untag("digits", "best")
    indexed.delete("digits", "1.0.0", reason="old")
    assert indexed.list_models() == []
    with pytest.raises(NotFound, match=r"digits:v1\.0\.0 was deleted"):
        indexed.resolve("digits:v1.0.0")


def test_what_the_index_keeps_does_not_hide_damage(
    open_repository: Callable[..., ModelRepository], model: Path, tmp_path: Path
) -> None:
    store = Memory()
    indexed = open_repository(store, index=Index(store, tmp_path / "index"))
    version = indexed.register_model("digits", "1.0.0", model)
    assert indexed.resolve("digits") == version
    store.put("versions/digits/v1.0.0.json", b"{}")
    [damage] = indexed.verify(version)
    assert damage.path == "the manifest"
