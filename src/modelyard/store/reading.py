"""Reading objects in order: straight from one request after another while the network is quick, else through many side
by side, with a fixed amount of memory for all of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from types import TracebackType

from modelyard.errors import IntegrityError
from modelyard.store.documents import RESTORE
from modelyard.store.objects import CHUNK, Buffer, Store
from modelyard.store.parallel import Stop

_REQUESTS = 16
_AHEAD = 12  # of one object
_LONGEST = 8 * CHUNK
_QUICK = 120_000_000  # bytes/s of one request, at which more of them would only cost memory and copies


class Reader:
    """Reads any number of objects at once, each in a thread of the caller's."""

    def __init__(self, store: Store, stop: Stop) -> None:
        self._store = store
        self._stop = stop
        self._pool = ThreadPoolExecutor(_REQUESTS)
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        for _ in range(_REQUESTS):
            self._free.put(None)  # made when it is needed

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def chunks(self, key: str, size: int, start: int = 0) -> Generator[Buffer]:
        """The bytes from `start` on of an object of `size` bytes; a chunk is valid until the next one is asked for.

        Raises NotFound, and IntegrityError for an object of another size.
        """
        if size == 0 and self._store.get(key):
            raise IntegrityError(f"{key} in {self._store.url} is not empty", remedy=RESTORE)
        length, quick = CHUNK, True
        while quick and start < size:
            length = min(length, size - start)
            waited = yield from self._straight(key, start, length, size)
            quick = length > waited * _QUICK
            start, length = start + length, min(2 * length, _LONGEST)
        yield from self._side_by_side(key, start, size)

    def _straight(self, key: str, start: int, length: int, size: int) -> Generator[Buffer, None, float]:
        """One request; returns the seconds that were spent waiting for it."""
        waited, began = 0.0, time.perf_counter()
        for piece in self._store.read(key, start, length, size=size):
            waited += time.perf_counter() - began
            self._stop.check()
            yield piece
            began = time.perf_counter()
        return waited

    def _side_by_side(self, key: str, start: int, size: int) -> Generator[Buffer]:
        under_way: deque[tuple[memoryview, Future[memoryview]]] = deque()
        try:
            while start < size or under_way:
                self._stop.check()
                while start < size and (buffer := self._buffer(len(under_way))) is not None:
                    part = buffer[: min(CHUNK, size - start)]
                    under_way.append((buffer, self._pool.submit(self._fill, part, key, start, size)))
                    start += len(part)
                yield under_way[0][1].result()
                self._free.put(under_way.popleft()[0])
        finally:
            for buffer, future in under_way:
                if not future.cancel():
                    future.exception()
                self._free.put(buffer)

    def _buffer(self, held: int) -> memoryview | None:
        """One more, if there is one to spare; who has none waits for one."""
        if held >= _AHEAD:
            return None
        try:
            buffer = self._free.get(block=not held)
        except Empty:
            return None
        return memoryview(bytearray(CHUNK)) if buffer is None else buffer

    def _fill(self, part: memoryview, key: str, start: int, size: int) -> memoryview:
        at = 0
        for piece in self._store.read(key, start, len(part), size=size):
            self._stop.check()
            part[at : at + len(piece)] = piece
            at += len(piece)
        return part
