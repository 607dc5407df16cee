"""When a failed request is tried again, and when that is given up."""

from __future__ import annotations

import time

import pytest

from modelyard.errors import StoreError
from modelyard.store.patience import Patience

BROKEN = "Generic S3 error: Error performing PUT http://host/a in 447.891µs - HTTP error: error sending request"
SPENT = BROKEN.replace("447.891µs", "{took}, after {made} retries, max_retries: 10, retry_timeout: 90s ")


def failure(text: str) -> StoreError:
    error = StoreError("failed")
    error.__cause__ = OSError(text)
    return error


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited; nobody waits for them."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(waited))
    return waited


def test_waits_grow_and_end(clock: list[float]) -> None:
    patience, error = Patience(), failure(BROKEN)
    for _ in range(5):
        patience.wait(error)
    assert clock[0] < clock[2] < clock[4] and sum(clock) < 4
    with pytest.raises(StoreError) as ended:
        patience.wait(error)
    assert ended.value is error
    patience.refill()
    patience.wait(error)


@pytest.mark.parametrize(
    ("text", "again"),
    [
        (BROKEN, True),
        ("Error getting list response body: HTTP error: request or response body error", True),
        ("409 Conflict: <Code>ConditionalRequestConflict</Code>", True),
        (SPENT.format(took="3.5s", made=3), True),
        (SPENT.format(took="3.5s", made=10), False),
        (SPENT.format(took="91.2s", made=2), False),
        (SPENT.format(took="912.5ms", made=10), False),
        ("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>", False),
        ("No such file or directory", False),
    ],
)
def test_only_what_passes_is_tried_again(clock: list[float], text: str, again: bool) -> None:
    if again:
        Patience().wait(failure(text))
        assert len(clock) == 1
        return
    with pytest.raises(StoreError):
        Patience().wait(failure(text))
    assert clock == []


def test_attempts_that_take_long_are_few(clock: list[float]) -> None:
    patience = Patience()
    clock.append(60)
    patience.wait(failure(BROKEN))
    clock.append(60)
    with pytest.raises(StoreError):
        patience.wait(failure(BROKEN))
