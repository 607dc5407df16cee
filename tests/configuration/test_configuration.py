"""Central configuration: what was set is found, with its history."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.configuration import ConfigurationManager
from modelyard.errors import InvalidInput, NotFound
from modelyard.store import Memory, Store


def test_values_are_kept_with_their_history(store: Store) -> None:
    manager = ConfigurationManager(store, user="tester")
    manager.set_config("embeddings", "semantic_search", "all-MiniLM-L6-v2")
    manager.set_config("embeddings", "classification", {"variants": {"x": 1, "y": 2}}, reason="trial")
    manager.set_config("embeddings", "semantic_search", "bge-small", reason="better")
    assert manager.get_config("embeddings", "semantic_search") == "bge-small"
    assert manager.get_section("embeddings") == {
        "semantic-search": "bge-small",
        "classification": {"variants": {"x": 1, "y": 2}},
    }
    assert [(entry.by, entry.why) for entry in manager.history("embeddings")] == [
        ("tester", "set semantic-search"),
        ("tester", "set classification: trial"),
        ("tester", "set semantic-search: better"),
    ]


@given(st.lists(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_the_last_value_set_is_the_value(values: list[object]) -> None:
    manager = ConfigurationManager(Memory(), user="tester")
    for value in values:
        manager.set_config("limits", "rate", value)
        assert repr(manager.get_config("limits", "rate")) == repr(value)


def test_keys_set_at_once_are_all_kept() -> None:
    manager = ConfigurationManager(Memory(), user="tester")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: manager.set_config("limits", f"k{number}", number), range(32)))
    assert manager.get_section("limits") == {f"k{number}": number for number in range(32)}


def test_a_key_never_set_is_named() -> None:
    manager = ConfigurationManager(Memory(), user="tester")
    assert manager.get_section("limits") == {}
    assert manager.history("limits") == []
    with pytest.raises(NotFound, match="there is no 'rate' in the configuration section 'limits'; set it with `model"):
        manager.get_config("limits", "rate")
    manager.set_config("limits", "rate", None)
    assert manager.get_config("limits", "rate") is None


@pytest.mark.parametrize("section", ["", "Limits", "../x", "a/b", "1a", "a b", "x" * 64])
def test_bad_sections_are_refused(section: str) -> None:
    manager = ConfigurationManager(Memory(), user="tester")
    with pytest.raises(InvalidInput, match="is not a configuration section; use lower-case letters"):
        manager.set_config(section, "rate", 1)


@pytest.mark.parametrize(("key", "value"), [("", 1), ("rate", {1}), ("rate", float("inf"))])
def test_bad_keys_and_values_are_refused(key: str, value: object) -> None:
    manager = ConfigurationManager(Memory(), user="tester")
    with pytest.raises(InvalidInput):
        manager.set_config("limits", key, value)
    assert manager.history("limits") == []
