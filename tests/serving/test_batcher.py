from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.repository.manifest import Signature, Tensor
from modelyard.serving.batcher import Batcher, QueueFull
from modelyard.serving.protocol import Arrays, ModelFailed

from .support import EchoRuntime, rows

LONG_S = 60.0  # a delay that a test would not outlive
Scenario = Callable[[Batcher], Awaitable[Any]]


def run(runtime: EchoRuntime, scenario: Scenario, *, delay_s: float = 0.0, **limits: int) -> Any:
    async def main() -> Any:
        options = {"max_batch": 8, "queue_limit": 64, **limits}
        batcher = Batcher(runtime, delay_s=delay_s, **options)
        try:
            return await asyncio.wait_for(scenario(batcher), 20)
        finally:
            runtime.gate.set()
            await batcher.close()

    return asyncio.run(main())


def start(batcher: Batcher, *requests: Arrays) -> list[asyncio.Task[Arrays]]:
    return [asyncio.create_task(batcher.infer(request)) for request in requests]


async def hold_first(runtime: EchoRuntime, batcher: Batcher) -> asyncio.Task[Arrays]:
    """A request that the worker is busy with until the gate opens."""
    (task,) = start(batcher, rows(0))
    await asyncio.to_thread(runtime.entered.acquire)
    return task


def test_a_lone_request_waits_for_nobody() -> None:
    runtime = EchoRuntime()
    runtime.gate.set()
    answer = run(runtime, lambda batcher: batcher.infer(rows(1, 2)), delay_s=LONG_S)
    assert np.array_equal(answer["x"], rows(1, 2)["x"])
    assert runtime.calls == [2]


def test_requests_that_gather_are_computed_together_and_split_again() -> None:
    runtime = EchoRuntime()

    async def scenario(batcher: Batcher) -> list[Arrays]:
        first = await hold_first(runtime, batcher)
        others = start(batcher, rows(1), rows(2, 3), rows(4))
        await asyncio.sleep(0)
        runtime.gate.set()
        return list(await asyncio.gather(first, *others))

    answers = run(runtime, scenario)
    assert runtime.calls == [1, 4]
    assert [answer["x"][:, 0].tolist() for answer in answers] == [[0], [1], [2, 3], [4]]


def test_no_batch_is_larger_than_the_limit() -> None:
    runtime = EchoRuntime()

    async def scenario(batcher: Batcher) -> list[Arrays]:
        first = await hold_first(runtime, batcher)
        others = start(batcher, *(rows(n) for n in range(1, 20)))
        await asyncio.sleep(0)
        runtime.gate.set()
        return list(await asyncio.gather(first, *others))

    answers = run(runtime, scenario, max_batch=8)
    assert runtime.calls == [1, 8, 8, 3]
    assert [answer["x"][0, 0] for answer in answers] == list(range(20))


def test_a_request_larger_than_the_limit_is_computed_in_parts() -> None:
    runtime = EchoRuntime()
    runtime.gate.set()
    answer = run(runtime, lambda batcher: batcher.infer(rows(*range(20))), max_batch=8)
    assert runtime.calls == [8, 8, 4]
    assert answer["x"][:, 0].tolist() == list(range(20))


def test_a_bad_request_does_not_fail_its_neighbours() -> None:
    runtime = EchoRuntime()

    async def scenario(batcher: Batcher) -> list[Any]:
        first = await hold_first(runtime, batcher)
        others = start(batcher, rows(1), rows(666), rows(2))
        await asyncio.sleep(0)
        runtime.gate.set()
        return list(await asyncio.gather(first, *others, return_exceptions=True))

    _, before, bad, after = run(runtime, scenario)
    assert before["x"][0, 0] == 1
    assert after["x"][0, 0] == 2
    assert isinstance(bad, ModelFailed)
    assert str(bad) == "the model failed: ValueError: the number of the beast"
    assert runtime.calls == [1, 3, 1, 1, 1]


def test_requests_of_other_shapes_are_computed_apart() -> None:
    runtime = EchoRuntime(
        signature=Signature((Tensor("x", "FP32", (-1, -1)),), (Tensor("x", "FP32", (-1, -1)),)),
    )
    wide = {"x": np.ones((2, 3), dtype=np.float32)}

    async def scenario(batcher: Batcher) -> list[Arrays]:
        first = await hold_first(runtime, batcher)
        others = start(batcher, rows(1), wide, rows(2), wide)
        await asyncio.sleep(0)
        runtime.gate.set()
        return list(await asyncio.gather(first, *others))

    answers = run(runtime, scenario)
    assert runtime.calls == [1, 2, 4]
    assert [answer["x"].shape for answer in answers] == [(1, 2), (1, 2), (2, 3), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    "signature",
    [
        Signature(),
        Signature((Tensor("x", "FP32", (1, 2)),), (Tensor("x", "FP32", (1, 2)),)),
        Signature((Tensor("x", "FP32", (-1, 2)),), (Tensor("mean", "FP32", ()),)),
    ],
    ids=["unknown", "fixed", "one output for all rows"],
)
def test_models_that_do_not_take_batches_get_none(signature: Signature) -> None:
    runtime = EchoRuntime(signature=signature)

    async def scenario(batcher: Batcher) -> None:
        first = await hold_first(runtime, batcher)
        others = start(batcher, rows(1), rows(2))
        await asyncio.sleep(0)
        runtime.gate.set()
        await asyncio.gather(first, *others)

    run(runtime, scenario, delay_s=LONG_S)
    assert runtime.calls == [1, 1, 1]


def test_cancelled_requests_are_never_computed() -> None:
    runtime = EchoRuntime()

    async def scenario(batcher: Batcher) -> None:
        first = await hold_first(runtime, batcher)
        gone, stays = start(batcher, rows(1, 2, 3), rows(4))
        await asyncio.sleep(0)
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        runtime.gate.set()
        await asyncio.gather(first, stays)

    run(runtime, scenario)
    assert runtime.calls == [1, 1]


def test_a_full_queue_refuses_and_room_made_by_cancelling_counts() -> None:
    runtime = EchoRuntime()

    async def scenario(batcher: Batcher) -> None:
        first = await hold_first(runtime, batcher)
        waiting, gone = start(batcher, rows(1, 2), rows(3, 4))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as caught:
            await batcher.infer(rows(5))
        assert caught.value.status == 429
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        (later,) = start(batcher, rows(5))
        await asyncio.sleep(0)
        runtime.gate.set()
        await asyncio.gather(first, waiting, later)

    run(runtime, scenario, queue_limit=4)
    assert runtime.calls == [1, 3]


def test_outputs_that_do_not_match_the_rows_are_the_models_fault() -> None:
    class Mean(EchoRuntime):
        def infer(self, inputs: Arrays) -> Arrays:
            return {"x": super().infer(inputs)["x"].mean(axis=0, keepdims=True)}

    runtime = Mean()
    runtime.gate.set()
    with pytest.raises(ModelFailed, match=r"output 'x' has shape \[1, 2\] for a batch of 8"):
        run(runtime, lambda batcher: batcher.infer(rows(*range(20))))


SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=30)  # rows of each request


@settings(max_examples=200, deadline=None)
@given(data=st.data(), sizes=SIZES, max_batch=st.integers(1, 9), queue_limit=st.integers(1, 80))
def test_whatever_comes_everybody_gets_their_own(
    data: st.DataObject, sizes: list[int], max_batch: int, queue_limit: int
) -> None:
    """Requests of any size, some of which fail or are given up, before the queue, in it or while they are computed."""
    bad = data.draw(st.sets(st.integers(0, len(sizes) - 1), max_size=3), label="those that fail")
    gone = data.draw(st.sets(st.integers(0, len(sizes) - 1)), label="those that are given up")
    opens_at = data.draw(st.integers(0, len(sizes)), label="the model begins after so many")
    requests = [
        rows(*(666 if number in bad else 1000 + 50 * number + row for row in range(size)))
        for number, size in enumerate(sizes)
    ]
    runtime = EchoRuntime()

    async def scenario(batcher: Batcher) -> list[Any]:
        tasks = []
        for number, request in enumerate(requests):
            if number == opens_at:
                runtime.gate.set()
            tasks += start(batcher, request)
            await asyncio.sleep(0)
            given_up = data.draw(st.sampled_from(sorted(gone)), label="given up now") if gone else number + 1
            if given_up <= number:
                tasks[given_up].cancel()
        runtime.gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        found.append(await batcher.infer(rows(7)))  # it takes more
        return found

    *answers, last = run(runtime, scenario, max_batch=max_batch, queue_limit=queue_limit)
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        if isinstance(answer, dict):
            assert number not in bad
            np.testing.assert_array_equal(answer["x"], request["x"])
        else:
            expected = (asyncio.CancelledError,) if number in gone else ()
            failed = (ValueError, ModelFailed) if number in bad else ()
            assert isinstance(answer, (QueueFull, *expected, *failed)), repr(answer)
    np.testing.assert_array_equal(last["x"], rows(7)["x"])
    assert max(runtime.calls) <= max_batch
