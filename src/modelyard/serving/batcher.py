"""Dynamic batching: requests that are under way at the same time are computed together.

One batcher a model, with as many worker threads as its runtime says. A lone request starts at once; while the workers
compute, others gather. A runtime that prepares rows (tokenizes, say) has each row batched by itself, with rows of about
its own length; a large request is spread over batches and workers. Knows nothing of HTTP, nor how a batch is chosen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from queue import SimpleQueue

from modelyard.errors import Unavailable
from modelyard.serving.batches import Arrivals, Limits, is_full, next_batch
from modelyard.serving.compute import ROWS, Result, Work, batch_key, compute, concatenate, prepare, rows_of
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import Row, RowRuntime, Runtime

DEFAULT_TOKENS = 512
# Texts below so many characters are prepared where they arrive: that takes less time than waking a thread.
_SMALL = 2048


class QueueFull(Unavailable):
    """More rows wait than the queue may hold."""

    code, status = "overloaded", 429


@dataclass(slots=True, eq=False)
class _Job:
    """A request: its answer, and the results of its pieces, by the number of each."""

    rows: int
    arrived: float
    answer: asyncio.Future[Arrays]
    results: list[Arrays | None] = field(default_factory=list)
    missing: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Task(Work):
    job: _Job
    number: int


class Batcher:
    """Made inside a running event loop. `infer` may be awaited by many tasks; cancelling one drops its work."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        max_batch: int,
        delay_s: float,
        queue_limit: int,
        max_tokens: int = DEFAULT_TOKENS,
    ) -> None:
        self._runtime = runtime
        self._by_row = runtime if isinstance(runtime, RowRuntime) else None
        self._limits = Limits(max_batch, max_tokens)
        self._delay_s = delay_s
        self._queue_limit = queue_limit
        self._loop = asyncio.get_running_loop()
        self._arrivals = Arrivals()
        self._batch_s = 0.0  # what a batch usually takes
        self._waiting: list[_Task] = []  # in the order in which they are due
        self._queued_rows = 0  # of requests that wait, or are being prepared
        self._timer: asyncio.TimerHandle | None = None
        self._work: SimpleQueue[Sequence[_Task] | None] = SimpleQueue()
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        # Daemons: a model that never returns must not keep a stopping process alive.
        self._threads = [
            threading.Thread(target=self._worker, name=f"compute-{number}", daemon=True)
            for number in range(self._by_row.workers if self._by_row else 1)
        ]
        self._idle = len(self._threads)
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether the model is computing."""
        return self._idle < len(self._threads)

    async def infer(self, inputs: Arrays) -> Arrays:
        """The outputs. Raises QueueFull, ModelFailed, and what the runtime refuses."""
        job = _Job(rows_of(inputs), self._loop.time(), self._loop.create_future())
        self._admit(job)
        try:
            tasks = await self._tasks(job, inputs)
        except BaseException:
            self._queued_rows -= job.rows
            raise
        self._queued_rows += sum(task.rows for task in tasks) - job.rows
        self._waiting = sorted([*self._waiting, *tasks], key=lambda task: task.due) if self._waiting else tasks
        self._start_batches()
        return await job.answer

    async def close(self) -> None:
        """Ends the worker threads once they have computed what they were given."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._preparing.shutdown(wait=False, cancel_futures=True)

    def _admit(self, job: _Job) -> None:
        self._arrivals.note(job.arrived)
        if self._queued_rows + job.rows > self._queue_limit:
            self._drop_answered()
        if self._queued_rows and self._queued_rows + job.rows > self._queue_limit:
            raise QueueFull(f"{self._queued_rows} rows are waiting already", remedy="try again in a second")
        self._queued_rows += job.rows

    async def _tasks(self, job: _Job, inputs: Arrays) -> list[_Task]:
        """The request in pieces that may be computed apart, each at its own time."""
        runtime, limits = self._runtime, self._limits
        if self._by_row and (rows := await self._prepared(self._by_row, inputs)):
            before = accumulate((row.size for row in rows), initial=0)
            tasks = [
                _Task(ROWS, 1, row.size, self._due(job, tokens // limits.tokens), row.item, len(rows) == 1, job, number)
                for number, (row, tokens) in enumerate(zip(rows, before, strict=False))
            ]
        elif (key := batch_key(inputs, runtime.signature)) is None or job.rows <= limits.rows:
            tasks = [_Task(key, job.rows, 1, job.arrived, inputs, True, job, 0)]
        else:
            tasks = [
                _Task(key, rows_of(part), 1, self._due(job, number), part, False, job, number)
                for number, part in enumerate(_parts(inputs, job.rows, limits.rows))
            ]
        job.results, job.missing = [None] * len(tasks), len(tasks)
        return tasks

    async def _prepared(self, runtime: RowRuntime, inputs: Arrays) -> Sequence[Row]:
        if sum(len(value) for array in inputs.values() if array.dtype.kind == "O" for value in array.flat) <= _SMALL:
            return prepare(runtime, inputs)
        return await self._loop.run_in_executor(self._preparing, prepare, runtime, inputs)

    def _due(self, job: _Job, number: int) -> float:
        """When a request's batch of that number would begin if the request were alone: others may come in between."""
        return job.arrived + number * self._batch_s / len(self._threads)

    def _start_batches(self) -> None:
        """Gives idle workers their next batch, or sets the time at which they get one. Called at every change."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop_answered()
        while self._idle and self._waiting:
            batch = next_batch(self._waiting, self._limits, self._idle)
            wait_s = self._wait_s(batch)
            if wait_s > 0:
                self._timer = self._loop.call_later(wait_s, self._start_batches)
                return
            chosen = set(map(id, batch))
            self._waiting = [task for task in self._waiting if id(task) not in chosen]
            self._queued_rows -= sum(task.rows for task in batch)
            self._idle -= 1
            self._work.put(batch)

    def _wait_s(self, batch: Sequence[_Task]) -> float:
        if len(self._waiting) == 1 or is_full(batch, self._limits) or batch[0].job is batch[-1].job:
            return 0
        return self._arrivals.wait_s(batch[0].due, self._delay_s, self._loop.time())

    def _drop_answered(self) -> None:
        """Work whose client has gone, or whose request has failed already, is not computed."""
        if any(task.job.answer.done() for task in self._waiting):
            gone = sum(task.rows for task in self._waiting if task.job.answer.done())
            self._waiting = [task for task in self._waiting if not task.job.answer.done()]
            self._queued_rows -= gone

    def _worker(self) -> None:
        for batch in iter(self._work.get, None):
            began = time.perf_counter()
            results = compute(self._runtime, batch)
            took_s = time.perf_counter() - began
            try:
                self._loop.call_soon_threadsafe(self._finish, batch, results, took_s)
            except RuntimeError:  # The loop is closed: the process ends and nobody waits any more.
                return

    def _finish(self, batch: Sequence[_Task], results: Sequence[Result], took_s: float) -> None:
        self._batch_s = 0.75 * self._batch_s + 0.25 * took_s
        for task, result in zip(batch, results, strict=True):
            job = task.job
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
                continue
            job.results[task.number] = result
            job.missing -= 1
            if not job.missing:
                job.answer.set_result(concatenate([each for each in job.results if each is not None]))
        self._idle += 1
        self._start_batches()


def _parts(inputs: Arrays, rows: int, most: int) -> list[Arrays]:
    return [{name: array[at : at + most] for name, array in inputs.items()} for at in range(0, rows, most)]
