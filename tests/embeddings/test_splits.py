"""Variants share a task's requests by weight, and a key keeps its variant."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.embeddings.splits import Exposures, pick, position

KEYS = [f"user-{number}" for number in range(20_000)]
WEIGHTS = st.dictionaries(st.text(min_size=1), st.integers(0, 1000), min_size=1).filter(lambda w: any(w.values()))
POSITIONS = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("place", "expected"), [(0.0, "a"), (0.8999, "a"), (0.9, "b"), (0.9499, "b"), (0.95, "d"), (1 - 2**-53, "d")]
)
def test_each_takes_a_stretch_as_long_as_its_weight(place: float, expected: str) -> None:
    assert pick({"a": 90, "b": 5, "c": 0, "d": 5}, place) == expected


@given(WEIGHTS, POSITIONS)
def test_only_variants_with_a_weight_are_picked(variants: dict[str, int], place: float) -> None:
    assert variants[pick(variants, place)] > 0


@given(st.integers(1, 99), st.integers(0, 10), POSITIONS)
def test_the_second_keeps_all_it_has_when_its_weight_grows(weight: int, more: int, place: float) -> None:
    before = pick({"a": 100 - weight, "b": weight}, place)
    after = pick({"a": max(0, 100 - weight - more), "b": weight + more}, place)
    assert (before, after) != ("b", "a")


def test_keys_are_spread_as_the_weights_say() -> None:
    variants = {"a": 80, "b": 15, "c": 5}
    counts = Counter(pick(variants, position("semantic-search", key)) for key in KEYS)
    for name, weight in variants.items():
        assert counts[name] / len(KEYS) == pytest.approx(weight / 100, abs=0.01)


def test_without_a_key_chance_decides_by_weight() -> None:
    counts = Counter(pick({"a": 3, "b": 1}, position("clustering", None)) for _ in range(20_000))
    assert counts["b"] / 20_000 == pytest.approx(0.25, abs=0.03)


def test_a_little_more_weight_moves_few_keys() -> None:
    places = [position("semantic-search", key) for key in KEYS]
    moved = [place for place in places if pick({"a": 90, "b": 10}, place) != pick({"a": 85, "b": 15}, place)]
    assert len(moved) / len(KEYS) == pytest.approx(0.05, abs=0.01)


def test_tasks_are_split_independently() -> None:
    both = Counter(
        tuple(pick({"a": 1, "b": 1}, position(task, key)) for task in ("clustering", "classification")) for key in KEYS
    )
    assert all(count / len(KEYS) == pytest.approx(0.25, abs=0.02) for count in both.values())


def test_a_key_has_its_place_in_every_process() -> None:
    code = "from modelyard.embeddings.splits import position; print(position('semantic-search', 'Žofie'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == position("semantic-search", "Žofie") == pytest.approx(0.76927, abs=1e-4)


def test_exposures_are_counted_by_many_threads() -> None:
    exposures = Exposures()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: exposures.count("clustering", "ab"[number % 2]), range(4000)))
    exposures.count("classification", "a")
    assert exposures.as_dict() == {"clustering": {"a": 2000, "b": 2000}, "classification": {"a": 1}}
