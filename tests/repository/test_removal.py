"""What is taken back: tags removed, versions yanked, versions deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.errors import AlreadyExists, NotFound, Refused
from modelyard.repository import Deployment, ModelRepository
from modelyard.store import Memory

Open = Callable[..., ModelRepository]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights.bin").write_bytes(b"weights")
    return tmp_path / "model"


@pytest.fixture
def three(repository: ModelRepository, model: Path) -> ModelRepository:
    """A model in three versions, on a store of each kind."""
    return registered(repository, model)


@pytest.fixture
def small(open_repository: Open, model: Path) -> ModelRepository:
    return registered(open_repository(Memory()), model)


def registered(repository: ModelRepository, model: Path) -> ModelRepository:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        repository.register_model("digits", version, model)
    return repository


def latest(repository: ModelRepository) -> str:
    return str(repository.resolve("digits").version)


# Yanked.


def test_nothing_new_resolves_to_a_yanked_version(small: ModelRepository) -> None:
    small.tag("digits", "best", "v1.2.0")
    small.yank("digits", "1.2.0", reason="wrong labels")
    assert latest(small) == "v1.1.0"
    assert small.tags("digits") == {"latest": "v1.1.0", "best": "v1.2.0"}
    assert small.list_models("digits") == ["v1.0.0", "v1.1.0", "v1.2.0"]
    assert str(small.resolve("digits:best").version) == str(small.resolve("digits:v1.2.0").version) == "v1.2.0"
    with pytest.raises(Refused, match=r"digits:v1\.2\.0 is yanked: wrong labels; choose another version"):
        small.tag("digits", "new", "v1.2.0")
    assert small.history("digits")[-1].why == "yank v1.2.0: wrong labels"


def test_a_yank_is_taken_back(small: ModelRepository) -> None:
    small.yank("digits", "1.2.0", reason="wrong labels")
    small.undo_yank("digits", "1.2.0", reason="they were right")
    assert latest(small) == "v1.2.0"
    with pytest.raises(NotFound, match=r"digits:v1\.2\.0 is not yanked"):
        small.undo_yank("digits", "1.2.0")


def test_when_all_are_yanked_there_is_no_latest(small: ModelRepository) -> None:
    for version in small.list_models("digits"):
        small.yank("digits", version, reason="all wrong")
    with pytest.raises(NotFound, match="digits has no release, all of them are yanked; name a version"):
        small.resolve("digits")


# Removed tags.


def test_a_removed_tag_is_gone_and_comes_back_by_undo(small: ModelRepository) -> None:
    small.tag("digits", "best", "v1.0.0")
    small.untag("digits", "best", reason="nobody asked")
    with pytest.raises(NotFound, match="digits has no tag 'best'"):
        small.resolve("digits:best")
    with pytest.raises(NotFound, match="digits has no tag 'best'"):
        small.untag("digits", "best")
    assert small.undo_tag("digits", "best") == "v1.0.0"
    with pytest.raises(Refused, match="use `modelyard stage`"):
        small.untag("digits", "staging")


# Deleted.


def test_a_deleted_version_is_gone_for_good(three: ModelRepository, model: Path) -> None:
    gone = three.delete("digits", "1.2.0", reason="made of stolen data")
    assert three.list_models("digits") == ["v1.0.0", "v1.1.0"]
    assert latest(three) == "v1.1.0"
    with pytest.raises(NotFound, match=r"digits:v1\.2\.0 was deleted: made of stolen data"):
        three.resolve("digits:v1.2.0")
    with pytest.raises(NotFound, match="was deleted"):
        three.resolve(gone.ref)
    with pytest.raises(AlreadyExists, match=r"was deleted \(made of stolen data\), and its number is not used again"):
        three.register_model("digits", "1.2.0", model)
    assert not list(three.storage.objects("models/digits/v1.2.0"))
    assert not list(three.storage.objects("uploads"))
    with pytest.raises(NotFound, match="was deleted"):
        three.delete("digits", "1.2.0", reason="again")
    assert three.verify(three.resolve("digits:v1.1.0")) == []
    assert three.history("digits")[-1].why == "delete v1.2.0: made of stolen data"


def test_a_model_without_versions_is_unknown(small: ModelRepository) -> None:
    for version in small.list_models("digits"):
        small.delete("digits", version, reason="all of it")
    with pytest.raises(NotFound, match="there is no model 'digits'"):
        small.resolve("digits")


def test_what_is_tagged_or_deployed_is_not_deleted(small: ModelRepository) -> None:
    small.tag("digits", "best", "v1.0.0")
    with pytest.raises(Refused, match=r"digits:v1\.0\.0 has the tag 'best'; .*modelyard tag digits best --remove"):
        small.delete("digits", "1.0.0", reason="old")
    small.request(small.resolve("digits:v1.1.0"), "production", why="promote")
    with pytest.raises(Refused, match=r"is deployed in production; .*undeploy digits --from production"):
        small.delete("digits", "1.1.0", reason="old")
    assert small.list_models("digits") == ["v1.0.0", "v1.1.0", "v1.2.0"]


def test_a_tag_does_not_come_back_to_a_deleted_version(small: ModelRepository) -> None:
    small.tag("digits", "best", "v1.0.0")
    small.tag("digits", "best", "v1.1.0")
    small.delete("digits", "1.0.0", reason="old")
    with pytest.raises(Refused, match=r"digits:v1\.0\.0, which 'best' meant before, was deleted"):
        small.undo_tag("digits", "best")


def test_deployed_while_it_is_deleted(small: ModelRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes second sees the other one: here the deployment comes between the look and the tombstone."""
    version, environment = small.resolve("digits:v1.0.0"), small.environment("staging")
    get, asked = environment.get, list[str]()

    def deployed_after_the_first_look(model: str) -> Deployment:
        found = get(model)
        if not asked:
            asked.append(small.request(version, "staging", why="stage"))
        return found

    monkeypatch.setattr(environment, "get", deployed_after_the_first_look)
    with pytest.raises(Refused, match="is deployed in staging"):
        small.delete("digits", "1.0.0", reason="old")
    assert small.resolve("digits:v1.0.0") == version
    assert small.verify(version) == []


def test_deleted_while_it_is_deployed(small: ModelRepository) -> None:
    version = small.resolve("digits:v1.0.0")
    small.delete("digits", "1.0.0", reason="old")
    with pytest.raises(NotFound, match=r"digits:v1\.0\.0 was deleted"):
        small.request(version, "staging", why="stage")
    assert small.environment("staging").get("digits").target is None
