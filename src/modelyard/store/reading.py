"""Reading objects in order through requests that run side by side, with a fixed amount of memory for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from types import TracebackType

from modelyard.errors import IntegrityError
from modelyard.store.documents import RESTORE
from modelyard.store.objects import CHUNK, Store
from modelyard.store.parallel import Stop

_REQUESTS = 16
_AHEAD = 12  # of one object


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

    def chunks(self, key: str, size: int, start: int = 0) -> Generator[memoryview]:
        """The bytes from `start` on of an object of `size` bytes; a chunk is valid until the next one is asked for.

        Raises NotFound, and IntegrityError for an object of another size.
        """
        if size == 0 and self._store.get(key):
            raise IntegrityError(f"{key} in {self._store.url} is not empty", remedy=RESTORE)
        under_way: deque[tuple[memoryview, Future[memoryview]]] = deque()
        try:
            while start < size or under_way:
                self._stop.check()
                while start < size and (buffer := self._buffer(len(under_way))) is not None:
                    part = buffer[: min(CHUNK, size - start)]
                    under_way.append((buffer, self._pool.submit(self._read, part, key, start, size)))
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

    def _read(self, part: memoryview, key: str, start: int, size: int) -> memoryview:
        self._stop.check()
        self._store.read_into(key, start, part, size=size)
        return part
