"""A reference is asked for as seldom as its meaning can change."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.embeddings.following import FOLLOW_S, Follower
from modelyard.errors import ModelyardError, NotFound, StoreError
from modelyard.refs import ModelRef


class Names:
    """Gives numbered versions, or fails when told to; time passes by hand."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: ModelyardError | None = None
        self.now = 0.0

    def resolve(self, ref: ModelRef) -> Any:
        self.asked.append(str(ref))
        if self.failure:
            raise self.failure
        return f"{ref} #{len(self.asked)}"


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def follower(names: Names) -> Follower:
    return Follower(names.resolve, clock=lambda: names.now)


def test_a_version_is_asked_for_once(names: Names, follower: Follower) -> None:
    for names.now in (0, 10, 1e6):
        assert str(follower.resolve("m:v1.0.0")) == "m:v1.0.0 #1"


@pytest.mark.parametrize("ref", ["m", "m:production"])
def test_a_tag_is_asked_for_again_after_a_second(names: Names, follower: Follower, ref: str) -> None:
    assert FOLLOW_S <= 2
    found = []
    for names.now in (0, FOLLOW_S * 0.9, FOLLOW_S, FOLLOW_S * 1.9, FOLLOW_S * 2.1):
        found.append(follower.resolve(ref))
    assert [str(each).rpartition("#")[2] for each in found] == ["1", "1", "2", "2", "3"]


def test_one_asks_while_the_others_go_on(names: Names, follower: Follower) -> None:
    follower.resolve("m")
    names.now = FOLLOW_S
    inner: list[Any] = []
    original = names.resolve

    def slow(ref: ModelRef) -> Any:
        inner.append(follower.resolve("m"))
        return original(ref)

    follower._resolve = slow
    assert [str(follower.resolve("m")), *inner] == ["m #2", "m #1"]


def test_what_is_known_counts_while_the_store_is_away(names: Names, follower: Follower) -> None:
    follower.resolve("m")
    names.now, names.failure = FOLLOW_S, StoreError("away")
    assert str(follower.resolve("m")) == "m #1"
    with pytest.raises(StoreError, match="away"):
        follower.resolve("other")


def test_what_is_gone_is_gone(names: Names, follower: Follower) -> None:
    follower.resolve("m")
    names.now, names.failure = FOLLOW_S, NotFound("gone")
    for _ in range(2):
        with pytest.raises(NotFound, match="gone"):
            follower.resolve("m")
    names.failure = None
    assert str(follower.resolve("m")) == "m #4"
