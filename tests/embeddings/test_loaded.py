"""A model is loaded once, kept within bounds, and a failed load is no fate."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from modelyard.embeddings.loaded import LoadedModels

THREADS = 64


def loaded(models: LoadedModels, key: str, size: int = 1) -> Any:
    model: Any = object()
    return models.obtain(key, size, lambda: model)


def test_many_who_ask_at_once_cause_one_load() -> None:
    models = LoadedModels(max_models=2, max_bytes=100)
    gate, loads, model = threading.Barrier(THREADS), list[int](), object()

    def load() -> Any:
        assert list(models) == [] and "m" not in models
        loads.append(1)
        return model

    def ask(_: int) -> object:
        gate.wait(30)
        return models.obtain("m", 1, load)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(ask, range(THREADS)))
    assert loads == [1]
    assert all(each is model for each in found)


def test_a_failed_load_fails_for_those_who_wait_and_is_tried_again() -> None:
    models = LoadedModels(max_models=2, max_bytes=100)
    begun, go_on = threading.Event(), threading.Event()

    def fail() -> Any:
        begun.set()
        assert go_on.wait(30)
        raise OSError("no memory")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(models.obtain, "m", 1, fail)
        assert begun.wait(30)
        second = pool.submit(loaded, models, "m")
        while not second.running():
            pass
        go_on.set()
        with pytest.raises(OSError, match="no memory"):
            first.result(30)
        if second.exception(30) is None:  # it came after the failure, and so loaded by itself
            assert len(models) == 1
        else:
            assert len(models) == 0
    assert loaded(models, "m") is models["m"]


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    models = LoadedModels(max_models=2, max_bytes=100)
    a = loaded(models, "a")
    loaded(models, "b")
    assert loaded(models, "a") is a
    loaded(models, "c")
    assert list(models) == ["a", "c"]
    assert loaded(models, "b") is not None
    assert list(models) == ["c", "b"]


def test_bytes_are_bounded_too() -> None:
    models = LoadedModels(max_models=10, max_bytes=100)
    for key, size in (("a", 40), ("b", 40), ("c", 40)):
        loaded(models, key, size)
    assert list(models) == ["b", "c"]


def test_one_larger_than_all_bounds_stays_alone() -> None:
    models = LoadedModels(max_models=10, max_bytes=100)
    loaded(models, "a", 40)
    huge = loaded(models, "huge", 1000)
    assert dict(models) == {"huge": huge}


def test_it_is_a_mapping() -> None:
    models = LoadedModels(max_models=2, max_bytes=100)
    assert (len(models), "a" in models, models.get("a")) == (0, False, None)
    a = loaded(models, "a")
    assert (len(models), "a" in models, models["a"]) == (1, True, a)
