"""Requests whose rows are prepared one by one and computed with rows of others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import Signature, Tensor
from modelyard.serving.batcher import Batcher
from modelyard.serving.protocol import Arrays, ModelFailed
from modelyard.serving.runtimes import Row, RowRuntime

from .support import wait_for

SIGNATURE = Signature((Tensor("text", "BYTES", (-1,)),), (Tensor("length", "INT64", (-1,)),))


@dataclass
class Lengths:
    """Texts to their lengths, a letter a token. Fails on `bad`, refuses `refused`, waits while its gate is shut."""

    platform: str = "lengths"
    signature: Signature = SIGNATURE
    workers: int = 1
    batches: list[list[str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def prepare(self, inputs: Arrays) -> Sequence[Row]:
        if "refused" in inputs["text"]:
            raise InvalidInput("a text that is refused")
        if "unprepared" in inputs["text"]:
            raise ValueError("no such letters")
        return [Row(text, len(text)) for text in inputs["text"]]

    def infer_rows(self, items: Sequence[Any]) -> Arrays:
        self.batches.append(list(items))
        assert self.gate.wait(30)
        if "bad" in items:
            raise ValueError("a bad text")
        return {"length": np.array([len(text) for text in items])}

    def infer(self, inputs: Arrays) -> Arrays:
        return {"length": np.array([len(text) for text in inputs["text"]], dtype=np.int64)}


def texts(*values: str) -> Arrays:
    return {"text": np.array(values, dtype=object)}


def run(runtime: Lengths, scenario: Callable[[Batcher], Awaitable[Any]]) -> Any:
    assert isinstance(runtime, RowRuntime)

    async def main() -> Any:
        batcher = Batcher(runtime, max_batch=8, max_tokens=100, delay_s=0, queue_limit=64)
        try:
            return await asyncio.wait_for(scenario(batcher), 20)
        finally:
            runtime.gate.set()
            await batcher.close()

    return asyncio.run(main())


async def begun(runtime: Lengths, batches: int) -> None:
    await asyncio.to_thread(wait_for, lambda: len(runtime.batches) >= batches)


def test_a_large_request_is_spread_over_batches_of_like_rows_and_answered_in_its_order() -> None:
    runtime = Lengths()
    runtime.gate.set()
    values = ["a" * length for length in (60, 2, 30, 3, 60, 1, 30, 2)]
    answer = run(runtime, lambda batcher: batcher.infer(texts(*values)))
    assert answer["length"].tolist() == [60, 2, 30, 3, 60, 1, 30, 2]
    assert sorted(text for batch in runtime.batches for text in batch) == sorted(values)
    assert all(len(batch) * max(map(len, batch)) <= 100 for batch in runtime.batches)


def test_all_workers_compute_rows_of_one_request() -> None:
    runtime = Lengths(workers=2)

    async def scenario(batcher: Batcher) -> Arrays:
        asked = asyncio.create_task(batcher.infer(texts(*["a" * 40] * 4)))
        await begun(runtime, 2)
        runtime.gate.set()
        return await asked

    assert run(runtime, scenario)["length"].tolist() == [40] * 4
    assert [len(batch) for batch in runtime.batches] == [2, 2]


def test_rows_of_several_requests_are_computed_together() -> None:
    runtime = Lengths()

    async def scenario(batcher: Batcher) -> list[Arrays]:
        tasks = [asyncio.create_task(batcher.infer(texts("first")))]
        await begun(runtime, 1)
        tasks += [asyncio.create_task(batcher.infer(each)) for each in (texts("aa", "bbb"), texts("c"), texts("dd"))]
        await asyncio.sleep(0)
        runtime.gate.set()
        return list(await asyncio.gather(*tasks))

    answers = run(runtime, scenario)
    assert [answer["length"].tolist() for answer in answers] == [[5], [2, 3], [1], [2]]
    assert runtime.batches == [["first"], ["aa", "bbb", "c", "dd"]]


def test_a_small_request_comes_in_between_the_batches_of_a_large_one() -> None:
    runtime = Lengths()

    async def scenario(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.infer(texts("first")))
        await begun(runtime, 1)
        await asyncio.sleep(0.05)  # what a batch takes is learned from this one
        runtime.gate.set()
        await first
        runtime.gate.clear()
        large = asyncio.create_task(batcher.infer(texts(*["x" * 100] * 20)))
        await begun(runtime, 2)
        small = asyncio.create_task(batcher.infer(texts("s")))
        await asyncio.sleep(0)
        runtime.gate.set()
        await asyncio.gather(large, small)

    run(runtime, scenario)
    assert ["s"] in runtime.batches[2:8]


def test_a_bad_row_fails_its_own_request_alone() -> None:
    runtime = Lengths()

    async def scenario(batcher: Batcher) -> list[Any]:
        tasks = [asyncio.create_task(batcher.infer(texts("first")))]
        await begun(runtime, 1)
        tasks += [asyncio.create_task(batcher.infer(each)) for each in (texts("aa", "bad"), texts("ccc"))]
        await asyncio.sleep(0)
        runtime.gate.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    _, bad, good = run(runtime, scenario)
    assert str(bad) == "the model failed: ValueError: a bad text"
    assert good["length"].tolist() == [3]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("refused", InvalidInput, "a text that is refused"),
        ("unprepared", ModelFailed, "the model failed: ValueError: no such letters"),
        ("refused" + "x" * 5000, InvalidInput, None),
    ],
)
def test_what_cannot_be_prepared_is_refused_and_leaves_no_trace(
    text: str, error: type[Exception], message: str | None
) -> None:
    runtime = Lengths()
    runtime.gate.set()

    async def scenario(batcher: Batcher) -> None:
        if message:
            with pytest.raises(error, match=message):
                await batcher.infer(texts(text))
        else:
            assert (await batcher.infer(texts(text)))["length"].tolist() == [5007]
        assert (await batcher.infer(texts("fine")))["length"].tolist() == [4]
        assert batcher._queued_rows == 0

    run(runtime, scenario)


def test_no_rows_are_answered_with_none() -> None:
    runtime = Lengths()
    runtime.gate.set()
    assert run(runtime, lambda batcher: batcher.infer({"text": np.array([], dtype=object)}))["length"].shape == (0,)


def test_rows_of_a_client_that_left_are_not_computed() -> None:
    runtime = Lengths()

    async def scenario(batcher: Batcher) -> None:
        large = asyncio.create_task(batcher.infer(texts(*["x" * 100] * 20)))
        await begun(runtime, 1)
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)
        runtime.gate.set()
        await batcher.infer(texts("next"))

    run(runtime, scenario)
    assert [len(batch) for batch in runtime.batches] == [1, 1]
    assert runtime.batches[1] == ["next"]
