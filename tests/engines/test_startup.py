from __future__ import annotations

import gc

import pytest

from modelyard.engines.startup import beside, without_collection


def test_collection_goes_on_afterwards_whatever_happens() -> None:
    with pytest.raises(ValueError, match="no model"), without_collection():
        assert not gc.isenabled()
        raise ValueError("no model")
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()


def test_imports_are_done_when_the_block_ends_and_their_failures_are_left_to_others() -> None:
    done: list[str] = []

    def fail() -> None:
        raise ImportError("no such library")

    with beside(fail, lambda: done.append("imported")):
        pass
    assert done == ["imported"]
