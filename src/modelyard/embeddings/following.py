"""Which version a reference means now, without asking the store each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelyard.errors import ModelyardError, StoreError
from modelyard.refs import ModelRef
from modelyard.repository.manifest import ModelVersion

FOLLOW_S = 1.0


@dataclass(frozen=True, slots=True)
class _Known:
    version: ModelVersion
    until: float


class Follower:
    """A reference with a version is asked once; one without, or with a tag, again after a second.

    Then one caller asks and the others go on with what was known; so does everybody while the store is away.
    """

    def __init__(
        self, resolve: Callable[[ModelRef], ModelVersion], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._resolve = resolve
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def resolve(self, ref: str) -> ModelVersion:
        """Raises NotFound, and StoreError for what was never known."""
        now = self._clock()
        with self._lock:
            known = self._known.get(ref)
            if known is not None and now < known.until:
                return known.version
            if known is not None:
                self._known[ref] = _Known(known.version, now + FOLLOW_S)
        parsed = ModelRef.parse(ref)
        try:
            version = self._resolve(parsed)
        except StoreError:
            if known is None:
                raise
            return known.version
        except ModelyardError:
            with self._lock:
                self._known.pop(ref, None)
            raise
        until = float("inf") if parsed.version or parsed.digest else now + FOLLOW_S
        with self._lock:
            self._known[ref] = _Known(version, until)
        return version
