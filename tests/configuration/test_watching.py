"""A change reaches those who watch a section, in this process and in others, at the price of one LIST a second."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.configuration import ConfigurationManager, watching
from modelyard.configuration.sections import Variants
from modelyard.errors import StoreError
from modelyard.store import Journal, Memory, Store, open_store

PERIOD_S = watching.PERIOD_S
Threads = Callable[[], set[threading.Thread]]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch, watching_threads: Threads) -> Iterator[None]:
    monkeypatch.setattr(watching, "PERIOD_S", 0.02)
    yield
    gc.collect()
    wait_for(lambda: not watching_threads())


def manager(store: Store) -> ConfigurationManager:
    return ConfigurationManager(store, user="tester", environ={})


def test_a_change_of_another_process_is_seen(shared_store: Store) -> None:
    with manager(shared_store).watch("embeddings") as watch:
        assert watch.value == {"semantic-search": "all-MiniLM-L6-v2"}

        manager(open_store(shared_store.url)).set_config("embeddings", "clustering", "bge")

        wait_for(lambda: "clustering" in watch.value)
        assert watch.parsed["clustering"] == Variants(variants={"bge": 1})


def test_the_period_leaves_time_to_read_within_two_seconds() -> None:
    assert PERIOD_S <= 1


def test_a_change_of_this_process_is_seen_at_once() -> None:
    config = manager(Memory())
    with config.watch("limits") as watch:
        config.set_config("limits", "rate", 1)
        assert watch.value == {"rate": 1}
        config.override("limits", "rate", 2)
        assert watch.value == {"rate": 2}
        config.undo("limits")
        config.override("limits", "other", 3)
        assert watch.value == {"rate": 2, "other": 3}


def test_those_who_asked_are_told_of_each_value_in_order() -> None:
    config, told = manager(Memory()), list[dict[str, Any]]()
    with config.watch("limits", told.append):
        for number in range(3):
            config.set_config("limits", "rate", number)
            wait_for(lambda: told[-1:] == [{"rate": number}])  # noqa: B023 - called within the round
    assert told == [{"rate": 0}, {"rate": 1}, {"rate": 2}]


def test_one_thread_and_one_list_for_any_number_of_watches(
    requests: list[tuple[str, str]], watching_threads: Threads
) -> None:
    config = manager(Memory())
    config.set_config("limits", "rate", 1)
    watches = [config.watch("limits") for _ in range(20)]
    assert len(watching_threads()) == 1

    requests.clear()
    wait_for(lambda: len(requests) > 20)
    assert {operation for operation, _ in requests} == {"objects"}
    assert [watch.value for watch in watches] == [{"rate": 1}] * 20
    for watch in watches:
        watch.close()


def test_the_thread_ends_with_the_last_watch_and_comes_back_with_the_next(watching_threads: Threads) -> None:
    config = manager(Memory())
    first = config.watch("limits")
    first.close()
    first.close()
    wait_for(lambda: not watching_threads())
    config.set_config("limits", "rate", 1)
    assert first.value == {}
    with config.watch("limits") as second:
        assert second.value == {"rate": 1}
        assert len(watching_threads()) == 1


def test_nobody_holds_the_manager_any_more(watching_threads: Threads) -> None:
    manager(Memory()).watch("limits")
    gc.collect()
    wait_for(lambda: not watching_threads())


def test_a_store_that_cannot_be_reached_leaves_the_last_value(monkeypatch: pytest.MonkeyPatch) -> None:
    config = manager(Memory())
    config.set_config("limits", "rate", 1)
    with config.watch("limits") as watch:

        def fail(*_: object) -> None:
            raise StoreError("the store is gone")

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "read", fail)
            wait_for(lambda: watch.problem)
            assert (watch.value, watch.problem) == ({"rate": 1}, "the store is gone")
        wait_for(lambda: not watch.problem)


def test_a_value_that_cannot_be_read_leaves_the_last_one() -> None:
    config = manager(Memory())
    with config.watch("engines") as watch:
        journal = Journal(config.storage, "config/engines")
        journal.update(lambda _: {"tiny": "abacus"}, by="other", why="by hand")
        wait_for(lambda: "abacus" in watch.problem)
        assert watch.value == {}
        config.set_config("engines", "tiny", "vllm")
        wait_for(lambda: watch.value == {"tiny": "vllm"})
        assert watch.problem == ""


def test_a_follower_that_fails_stops_nobody() -> None:
    config, told = manager(Memory()), list[object]()

    def broken(value: object) -> None:
        raise RuntimeError("a defect elsewhere")

    with config.watch("limits", broken), config.watch("limits", told.append):
        config.set_config("limits", "rate", 1)
        wait_for(lambda: told == [{"rate": 1}])
        config.set_config("limits", "rate", 2)
        wait_for(lambda: told == [{"rate": 1}, {"rate": 2}])


FORKED = """
import os, sys, time
from modelyard.configuration import ConfigurationManager
from modelyard.store import LocalDisk
config = ConfigurationManager(LocalDisk(sys.argv[1]), user="tester", environ={})
watch = config.watch("limits")
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
ConfigurationManager(config.storage, user="tester", environ={}).set_config("limits", "rate", 1)
deadline = time.monotonic() + 20
while not watch.value and time.monotonic() < deadline:
    time.sleep(0.01)
os._exit(0 if watch.value == {"rate": 1} else 1)
"""


def test_a_forked_process_goes_on_watching(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, str(tmp_path / "yard")], check=False, timeout=60)
    assert done.returncode == 0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)
