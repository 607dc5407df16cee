"""Changes are taken back by one more change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.configuration import ConfigurationManager
from modelyard.configuration.changes import changes, previous
from modelyard.errors import Conflict, InvalidInput, NotFound
from modelyard.store import Journal, Memory

STATES = st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.booleans()))


@pytest.fixture
def config() -> ConfigurationManager:
    manager = ConfigurationManager(Memory(), user="tester", environ={})
    for key, value in (("a", 1), ("b", 1), ("a", 2)):
        manager.set_config("limits", key, value)
    return manager


def test_the_last_change_of_a_section(config: ConfigurationManager) -> None:
    done = config.undo("limits", reason="too much")

    assert [str(change) for change in done] == ["a: 2 → 1"]
    assert config.get_section("limits") == {"a": 1, "b": 1}
    assert config.history("limits")[-1].why == "undo a: too much"


def test_undoing_an_undo_brings_it_back(config: ConfigurationManager) -> None:
    config.undo("limits")
    assert [str(change) for change in config.undo("limits")] == ["a: 1 → 2"]
    assert len(config.history("limits")) == 5


def test_one_key_leaves_the_others(config: ConfigurationManager) -> None:
    assert [str(change) for change in config.undo("limits", "b")] == ["b: 1 → not set"]
    assert config.get_section("limits") == {"a": 2}
    assert [str(change) for change in config.undo("limits", "b")] == ["b: not set → 1"]


def test_a_key_that_was_unset_comes_back(config: ConfigurationManager) -> None:
    config.unset_config("limits", "a")
    assert config.get_section("limits") == {"b": 1}
    config.undo("limits", "a")
    assert config.get_section("limits") == {"a": 2, "b": 1}


def test_what_was_never_set_cannot_be_undone_or_unset(config: ConfigurationManager) -> None:
    with pytest.raises(NotFound, match="the configuration section 'nothing' was never set"):
        config.undo("nothing")
    with pytest.raises(NotFound, match="'c' in the configuration section 'limits' was never set"):
        config.undo("limits", "c")
    with pytest.raises(NotFound, match="there is no 'c' in the bucket's configuration section 'limits'"):
        config.unset_config("limits", "c")


def test_a_value_that_would_be_refused_today_does_not_come_back() -> None:
    config = ConfigurationManager(Memory(), user="tester", environ={})
    Journal(config.storage, "config/engines").update(lambda _: {"tiny": "abacus"}, by="tester", why="long ago")
    config.set_config("engines", "tiny", "vllm")

    with pytest.raises(InvalidInput, match="can't be 'abacus'"):
        config.undo("engines")
    assert config.get_config("engines", "tiny") == "vllm"


def test_somebody_else_changes_the_section_meanwhile(
    config: ConfigurationManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., Any] = Journal.update

    def late(self: Journal, decide: Any, **options: Any) -> Any:
        monkeypatch.setattr(Journal, "update", original)
        config.set_config("limits", "b", 7)
        return original(self, decide, **options)

    monkeypatch.setattr(Journal, "update", late)
    with pytest.raises(Conflict, match="limits was changed in between; look again"):
        config.undo("limits")
    assert config.get_section("limits") == {"a": 2, "b": 7}


@given(STATES)
def test_a_section_undone_is_its_state_before(states: list[dict[str, Any]]) -> None:
    expected = None if not states else ([{}, *states])[-2]
    assert previous(states, None) == expected


@given(STATES, st.sampled_from("abc"))
def test_a_key_undone_changes_that_key_alone(states: list[dict[str, Any]], key: str) -> None:
    before = previous(states, key)
    if before is None:
        assert not any(key in state for state in states)
    else:
        assert [change.key for change in changes(states[-1], before)] == [key]
