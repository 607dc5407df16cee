"""Journals under everything that can go wrong: lost answers, failures, neighbours, many processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import IntegrityError, InvalidInput, StoreError
from modelyard.store import Entry, Journal, Memory, Store

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
states = st.none() | st.dictionaries(st.text(max_size=3).filter(str.isprintable), values, max_size=3)


def add(journal: Journal, **change: Any) -> Entry | None:
    return journal.update(lambda state: state | change, by="me", why="change")


def text(state: dict[str, Any]) -> str:
    return json.dumps(state, sort_keys=True)


@given(st.lists(states, max_size=12))
def test_any_sequence_of_changes_is_kept(wanted: list[dict[str, Any] | None]) -> None:
    journal = Journal(Memory(), "j")
    kept: list[dict[str, Any]] = []
    for state in wanted:
        journal.update(lambda _, new=state: new, by="me", why="change")  # type: ignore[misc]
        if state is not None and text(state) != text(kept[-1] if kept else {}):
            kept.append(state)
    history = journal.history()
    assert [entry.number for entry in history] == list(range(1, len(kept) + 1))
    assert [text(entry.state) for entry in history] == [text(state) for state in kept]
    assert journal.read() == (history[-1] if history else None)
    assert len({entry.id for entry in history}) == len(history)


def test_no_change_writes_nothing(requests: list[tuple[str, str]]) -> None:
    journal = Journal(Memory(), "j")
    assert journal.update(lambda state: state, by="me", why="nothing") is None
    entry = add(journal, a=1)
    assert add(journal, a=1) == entry
    assert [operation for operation, _ in requests].count("create") == 1


def test_values_that_python_takes_for_equal_are_changes() -> None:
    journal = Journal(Memory(), "j")
    for value in (1, True, 1.0, (1,), [1]):
        add(journal, value=value)
    assert [repr(entry.state["value"]) for entry in journal.history()] == ["1", "True", "1.0", "[1]"]


def test_what_decide_does_to_its_state_stays_with_it() -> None:
    journal = Journal(Memory(), "j")
    add(journal, tags={"a": 1})

    def spoil(state: dict[str, Any]) -> None:
        state["tags"]["a"] = 2

    journal.update(spoil, by="me", why="nothing")
    assert [entry.state for entry in journal.history()] == [{"tags": {"a": 1}}]


def test_what_decide_raises_comes_out() -> None:
    journal = Journal(Memory(), "j")

    def refuse(state: dict[str, Any]) -> None:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput, match="no"):
        journal.update(refuse, by="me", why="nothing")
    assert journal.read() is None


def test_what_json_cannot_hold_is_refused() -> None:
    journal = Journal(Memory(), "j")
    with pytest.raises(InvalidInput, match="the state of j can't be written as JSON"):
        add(journal, a={1, 2})
    assert journal.read() is None


# A store whose answers can't be trusted.


@pytest.mark.parametrize("answer", ["already there", "failure"])
def test_a_lost_answer_makes_no_second_entry(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Memory()
    journal, create, asked = Journal(store, "j"), store.create, []

    def losing(key: str, data: bytes) -> bool:
        create(key, data)
        if answer == "failure":
            raise StoreError("the answer is lost")
        return False

    def decide(state: dict[str, Any]) -> dict[str, Any]:
        asked.append(state)
        return {"n": state.get("n", 0) + 1}

    monkeypatch.setattr(store, "create", losing)
    for number in (1, 2, 3):
        entry = journal.update(decide, by="me", why="count")
        assert entry is not None
        assert (entry.number, entry.state) == (number, {"n": number})
    assert asked == [{}, {"n": 1}, {"n": 2}]
    assert [entry.state["n"] for entry in journal.history()] == [1, 2, 3]


@pytest.mark.parametrize("answer", ["already there", "failure"])
def test_an_entry_of_somebody_else_is_not_taken_for_ours(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Memory()
    journal, create = Journal(store, "j"), store.create

    def overtaken(key: str, data: bytes) -> bool:
        monkeypatch.undo()
        add(journal, theirs=1)
        assert not create(key, data)
        if answer == "failure":
            raise StoreError("the answer is lost")
        return False

    monkeypatch.setattr(store, "create", overtaken)
    add(journal, ours=1)
    assert [entry.state for entry in journal.history()] == [{"theirs": 1}, {"theirs": 1, "ours": 1}]


def test_a_failure_before_the_commit_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Memory()

    def failing(key: str, data: bytes) -> bool:
        raise StoreError("no room")

    monkeypatch.setattr(store, "create", failing)
    with pytest.raises(StoreError, match="no room"):
        add(Journal(store, "j"), a=1)
    assert list(store.objects("")) == []


# Neighbours and requests.


def test_journals_inside_a_journals_folder_do_not_mix(store: Store) -> None:
    names = ("catalog/ns", "catalog/ns/0abc", "catalog/ns/zzz", "catalog/ns/9a")
    for name in names:
        journal = Journal(store, name)
        for number in (1, 2):
            add(journal, name=name, number=number)
    for name in names:
        journal = Journal(store, name)
        newest = journal.read()
        assert newest is not None
        assert newest.state == {"name": name, "number": 2}
        assert [entry.state["name"] for entry in journal.history()] == [name, name]


def test_reading_is_one_list_and_one_get(store: Store, requests: list[tuple[str, str]]) -> None:
    journal = Journal(store, "j")
    for number in range(3):
        add(journal, number=number)
    requests.clear()
    journal.read()
    listing = ["objects"] if store.ordered else []  # on disk the folder is read instead
    assert [operation for operation, _ in requests] == [*listing, "get"]
    requests.clear()
    add(journal, number=3)
    assert [operation for operation, _ in requests] == [*listing, "get", "create"]


@pytest.mark.parametrize("document", ["{", "[1]", '{"number": 1}', '{"surprise": 1}', "null"])
def test_a_damaged_entry_is_named(document: str) -> None:
    store = Memory()
    store.put("j/999999999998.json", document.encode())
    with pytest.raises(IntegrityError, match=r"j/999999999998\.json"):
        Journal(store, "j").read()


# Processes.

TAG_AT_ONCE = """
import os, sys
from pathlib import Path
from modelyard.repository import Inspection, ModelRepository
from modelyard.store import Cache, open_store

url, writers, changes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start, go = os.pipe()
children = []
for writer in range(writers):
    if child := os.fork():
        children.append(child)
        continue
    os.close(go)
    os.read(start, 1)  # the end of the pipe lets everybody go at once
    repository = ModelRepository(
        open_store(url), cache=Cache(Path("unused")), inspect=lambda folder: Inspection(), user=f"writer-{writer}"
    )
    for change in range(changes):
        repository.tag("digits", f"tag-{writer}", f"v1.{change % 2}.0", reason=f"change {change}")
    os._exit(0)
os.close(go)
sys.exit(any([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""


def test_sixteen_processes_tag_one_model(
    shared_store: Store, open_repository: Callable[..., Any], tmp_path: Path
) -> None:
    """Linearizable: every acknowledged change is there once, in its writer's order, made on the state just before."""
    # SeaweedFS lets a writer that met another one wait for a whole second.
    changes = 2 if shared_store.url.startswith("s3:") else 200
    (tmp_path / "model.bin").write_bytes(b"weights")
    repository = open_repository(shared_store)
    for version in ("1.0.0", "1.1.0"):
        registered = repository.register_model("digits", version, tmp_path / "model.bin")
    command = [sys.executable, "-c", TAG_AT_ONCE, shared_store.url, "16", str(changes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    history = repository.history("digits")
    assert [change.number for change in history] == list(range(1, 16 * changes + 2))
    for before, after in pairwise(history):
        assert {tag for tag, _ in after.tags.items() ^ before.tags.items()} == {
            f"tag-{after.by.removeprefix('writer-')}"
        }
    for writer in range(16):
        mine = [change for change in history if change.by == f"writer-{writer}"]
        assert [change.why.partition(": ")[2] for change in mine] == [f"change {number}" for number in range(changes)]
        expected = [f"v1.{number % 2}.0@{registered.digest}" for number in range(changes)]
        assert [change.tags[f"tag-{writer}"] for change in mine] == expected
    newest = Journal(shared_store, "catalog/digits").read()
    assert newest is not None
    assert newest.state["tags"] == history[-1].tags


def test_entries_that_are_gone_are_an_error_not_an_empty_journal() -> None:
    store = Memory()
    journal = Journal(store, "config/x")
    journal.update(lambda state: state | {"a": 1}, by="me", why="first")
    assert journal.read()
    store.delete([found.key for found in store.objects("config/x")])
    with pytest.raises(StoreError, match="had 1 entries and has 0; look whether the store is where it was"):
        journal.read()
    with pytest.raises(StoreError):
        journal.update(lambda state: state | {"a": 2}, by="me", why="second")
    assert Journal(store, "config/x").read() is None
