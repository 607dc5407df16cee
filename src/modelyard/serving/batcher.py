"""Dynamic batching: requests that are under way at the same time are computed together.

One batcher and one worker thread a model. A lone request starts at once; while the worker computes, others gather, and
the next batch waits for more only until its oldest request has waited `delay_s`. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue

from modelyard.errors import Unavailable
from modelyard.serving.compute import Key, Result, batch_key, compute, rows_of
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import Runtime


class QueueFull(Unavailable):
    """More rows wait than the queue may hold."""

    code, status = "overloaded", 429


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    inputs: Arrays
    key: Key | None
    rows: int
    arrived: float
    answer: asyncio.Future[Arrays]


class Batcher:
    """Made inside a running event loop. `infer` may be awaited by many tasks; cancelling one drops its work."""

    def __init__(self, runtime: Runtime, *, max_batch: int, delay_s: float, queue_limit: int) -> None:
        self._runtime = runtime
        self._max_batch = max_batch
        self._delay_s = delay_s
        self._queue_limit = queue_limit
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Job] = deque()
        self._waiting_rows = 0
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._work: SimpleQueue[Sequence[_Job] | None] = SimpleQueue()
        # A daemon: a model that never returns must not keep a stopping process alive.
        self._thread = threading.Thread(target=self._worker, name="compute", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether the model is computing."""
        return self._busy

    async def infer(self, inputs: Arrays) -> Arrays:
        """The outputs. Raises QueueFull, ModelFailed, and what the runtime refuses."""
        rows = rows_of(inputs)
        if self._waiting_rows + rows > self._queue_limit:
            self._drop_cancelled()
        if self._waiting and self._waiting_rows + rows > self._queue_limit:
            raise QueueFull(f"{self._waiting_rows} rows are waiting already", remedy="try again in a second")
        key = batch_key(inputs, self._runtime.signature)
        job = _Job(inputs, key, rows, self._loop.time(), self._loop.create_future())
        self._waiting.append(job)
        self._waiting_rows += rows
        self._start_batch()
        return await job.answer

    async def close(self) -> None:
        """Ends the worker thread once it has computed what it was given."""
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    def _start_batch(self) -> None:
        """Gives the worker its next batch, or sets the time at which it gets one. Called at every change."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy:
            return
        self._drop_cancelled()
        if not self._waiting:
            return
        batch = self._next_batch()
        wait = self._waiting[0].arrived + self._delay_s - self._loop.time()
        full = batch[0].key is None or sum(job.rows for job in batch) >= self._max_batch
        if len(self._waiting) > 1 and not full and wait > 0:
            self._timer = self._loop.call_later(wait, self._start_batch)
            return
        for job in batch:
            self._waiting.remove(job)
            self._waiting_rows -= job.rows
        self._busy = True
        self._work.put(batch)

    def _next_batch(self) -> list[_Job]:
        """The oldest request and those behind it that can be joined to it, up to `max_batch` rows."""
        first = self._waiting[0]
        batch, rows = [first], first.rows
        for job in islice(self._waiting, 1, None) if first.key is not None else ():
            if rows >= self._max_batch:
                break
            if job.key == first.key and rows + job.rows <= self._max_batch:
                batch.append(job)
                rows += job.rows
        return batch

    def _drop_cancelled(self) -> None:
        if any(job.answer.done() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.answer.done())
            self._waiting_rows = sum(job.rows for job in self._waiting)

    def _worker(self) -> None:
        for batch in iter(self._work.get, None):
            requests = [job.inputs for job in batch]
            results = compute(self._runtime, requests, batch[0].key, self._max_batch)
            try:
                self._loop.call_soon_threadsafe(self._finish, batch, results)
            except RuntimeError:  # The loop is closed: the process ends and nobody waits any more.
                return

    def _finish(self, batch: Sequence[_Job], results: Sequence[Result]) -> None:
        for job, result in zip(batch, results, strict=True):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)
        self._busy = False
        self._start_batch()
