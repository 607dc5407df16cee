"""When a request is sent again after a failure that passes, where obstore does not do so by itself.

obstore sends most requests again on 5xx, 429 and broken connections, and goes on with a broken download. It does not
repeat a conditional write whose connection broke, nor an answer other than a download that breaks off in the middle,
and it gives up on a download that was under way for longer than its limit. Knows nothing of keys.
"""

from __future__ import annotations

import random
import re
import time

from modelyard.errors import StoreError

_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds
_LIMIT = 90  # seconds; a server that never answers takes long for each attempt
_PASSING = re.compile(r"HTTP error: (error sending request|request or response body error)|ConditionalRequestConflict")
_SPENT = re.compile(r"(?: in ([\d.]+)s)?, after (\d+) retries, max_retries: (\d+), retry_timeout: ([\d.]+)s")


class Patience:
    """How often one call is made again; whatever comes through in between fills it up."""

    def __init__(self) -> None:
        self.refill()

    def refill(self) -> None:
        self._waits = list(_WAITS)
        self._end = time.monotonic() + _LIMIT

    def wait(self, error: StoreError) -> None:
        """Wait before the next attempt. Raises the error itself when there is no point in one."""
        if not self._waits or time.monotonic() > self._end or not _passes(str(error.__cause__)):
            raise error
        time.sleep(self._waits.pop(0) * random.uniform(0.5, 1))  # noqa: S311 - to part those that failed together


def _passes(text: str) -> bool:
    if spent := _SPENT.search(text):  # what took less than a second has no time here
        took, made, most, limit = (float(part or 0) for part in spent.groups())
        if made >= most or took >= limit:
            return False
    return _PASSING.search(text) is not None
