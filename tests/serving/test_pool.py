from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, NotFound, StoreError, Unavailable
from modelyard.refs import Digest, Version
from modelyard.repository.manifest import ModelVersion
from modelyard.serving import pool as module
from modelyard.serving.memory import Memory
from modelyard.serving.models import Served
from modelyard.serving.pool import LoadFailed, Pool
from modelyard.settings import ServingSettings

from .support import EchoRuntime, Model

SIZE = 1024 * 1024


@dataclass
class FakeShelf:
    """Versions made of one manifest, each of SIZE bytes; those in `broken` can't be had, for the reason given."""

    template: ModelVersion
    names: list[str]
    broken: dict[str, Exception] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    read: int = 0

    def label(self, name: str, version: str = "v1.0.0") -> str:
        return f"{name}:{version}@{self.template.digest}"

    def labels(self) -> Iterable[str]:
        self.read += 1
        return [self.label(name) for name in self.names]

    def take(self, label: str) -> Served:
        name = label.partition(":")[0]
        self.taken.append(name)
        assert self.gate.wait(30)
        if name in self.broken:
            raise self.broken[name]
        file = replace(self.template.files[0], size=SIZE)
        return Served(replace(self.template, name=name, files=(file,)), Path())


@dataclass
class Scene:
    shelf: FakeShelf
    pool: Pool
    now: float = 0

    async def ask(self, name: str) -> float:
        async with self.pool.use("anything", self.shelf.label(name)) as model:
            answer = await model.batcher.infer({"x": np.ones((1, 2), dtype=np.float32)})
            return float(answer["x"][0, 0])

    @property
    def loaded(self) -> set[str]:
        return {model.version.name for model in self.pool.all()}


@pytest.fixture
def play(adder: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a scene with a pool over models `a` to `e`."""

    def load(_: Served, **__: object) -> EchoRuntime:
        runtime = EchoRuntime()
        runtime.gate.set()
        return runtime

    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(module, "resident", lambda: 0)

    def run(act: Callable[[Scene], Awaitable[None]], *, budget: int = 10 * SIZE, shut: bool = False) -> Scene:
        shelf = FakeShelf(adder.version, list("abcde"))
        if not shut:
            shelf.gate.set()

        async def main() -> Scene:
            settings = ServingSettings(idle_timeout_s=100, drain_timeout_s=10, ready_timeout_s=20)
            scene = Scene(shelf, Pool(shelf, settings, Memory(budget)))
            scene.pool.clock = lambda: scene.now
            await act(scene)
            await scene.pool.close()
            return scene

        return asyncio.run(main())

    return run


def test_a_model_is_loaded_at_its_first_request_and_once_for_many(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        asked = [asyncio.create_task(scene.ask("a")) for _ in range(50)]
        await asyncio.sleep(0)
        scene.shelf.gate.set()
        assert set(await asyncio.gather(*asked)) == {1.0}
        assert scene.loaded == {"a"}

    assert play(act, shut=True).shelf.taken == ["a"]


def test_the_least_recently_used_one_makes_room(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        for now, name in enumerate(["a", "b", "a", "c"]):
            scene.now = now
            await scene.ask(name)
        assert scene.loaded == {"a", "c"}
        assert scene.pool.memory.leased == 2 * SIZE

    play(act, budget=2 * SIZE)


def test_one_that_is_used_makes_no_room_and_the_next_waits_for_it(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        async with scene.pool.use("", scene.shelf.label("a")):
            waiting = asyncio.create_task(scene.ask("b"))
            while scene.shelf.taken != ["a", "b"]:
                await asyncio.sleep(0)
            assert scene.loaded == {"a"}
        assert await waiting == 1.0
        assert scene.loaded == {"b"}

    play(act, budget=SIZE)


def test_one_larger_than_the_budget_says_so(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        with pytest.raises(
            LoadFailed, match=r"needs 1048576 bytes, the budget for all models is 1048575; raise serving\.mem"
        ):
            await scene.ask("a")

    play(act, budget=SIZE - 1)


def test_idle_ones_are_unloaded_and_come_back(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        await scene.ask("a")
        scene.now = 60
        await scene.ask("b")
        scene.now = 101
        await scene.pool.sweep()
        assert scene.loaded == {"b"}
        assert await scene.ask("a") == 1.0

    assert play(act).shelf.taken == ["a", "b", "a"]


def test_one_that_is_not_deployed_any_more_goes_after_what_is_under_way(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        await scene.ask("a")
        scene.shelf.names.remove("a")
        scene.now = 5
        await scene.pool.sweep()
        assert await scene.ask("a") == 1.0  # it may have been sent before
        scene.now = 11
        await scene.pool.sweep()
        assert scene.loaded == set()
        with pytest.raises(NotFound, match="is not served on demand here"):
            await scene.ask("a")

    play(act)


def test_only_what_is_deployed_on_demand_may_be_asked_for(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        for label in (scene.shelf.label("z"), scene.shelf.label("a", "v2.0.0"), "nonsense"):
            with pytest.raises(NotFound):
                async with scene.pool.use("a", label):
                    pass
        scene.shelf.names.append("z")  # deployed since
        assert await scene.ask("z") == 1.0

    assert play(act).shelf.taken == ["z"]


def test_a_broken_one_is_not_tried_at_every_request(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        scene.shelf.broken["a"] = InvalidInput("model.onnx can't be loaded: it is cut off")
        for _ in range(20):
            with pytest.raises(LoadFailed, match=r"model\.onnx can't be loaded: it is cut off"):
                await scene.ask("a")
        assert scene.shelf.taken == ["a"]
        del scene.shelf.broken["a"]
        scene.now = 11
        assert await scene.ask("a") == 1.0
        assert scene.pool.memory.leased == SIZE

    play(act)


def test_a_store_that_is_away_is_not_the_models_fault(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        scene.shelf.broken["a"] = StoreError("the store is away")
        with pytest.raises(StoreError):
            await scene.ask("a")
        del scene.shelf.broken["a"]
        scene.now = 1.1
        assert await scene.ask("a") == 1.0

    play(act)


def test_few_are_loaded_at_once(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        asked = [asyncio.create_task(scene.ask(name)) for name in "abcde"]
        await asyncio.sleep(0.05)
        assert len(scene.shelf.taken) <= module.LOADS_AT_ONCE
        scene.shelf.gate.set()
        await asyncio.gather(*asked)
        assert scene.loaded == set("abcde")

    play(act, shut=True)


def test_who_has_no_patience_hears_that_it_is_loading(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        with pytest.raises(Unavailable, match="is still loading"):
            async with scene.pool.use("", scene.shelf.label("a"), patience_s=0.01):
                pass
        scene.shelf.gate.set()
        assert await scene.ask("a") == 1.0

    assert play(act, shut=True).shelf.taken == ["a"]


def test_who_goes_away_does_not_stop_the_loading(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        impatient = asyncio.create_task(scene.ask("a"))
        while not scene.shelf.taken:
            await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        scene.shelf.gate.set()
        assert await scene.ask("a") == 1.0

    assert play(act, shut=True).shelf.taken == ["a"]


def test_names_find_what_may_be_asked_for(play: Callable[..., Any]) -> None:
    async def act(scene: Scene) -> None:
        async with scene.pool.use("b:v1.0.0") as model:
            assert (model.version.name, model.version.version) == ("b", Version(1, 0, 0))
        with pytest.raises(Unavailable, match="requests under way"):
            async with scene.pool.use("b"):
                await scene.pool.unload("b")
        assert {(str(each.ref), each.loaded) for each in await scene.pool.index()} == {
            (scene.shelf.label(name), name == "b") for name in "abcde"
        }
        await scene.pool.unload("b")
        assert scene.loaded == set()
        for unknown in ("z", "b:v2.0.0", f"b:v1.0.0@{Digest('sha256:' + 64 * '0')}", ":"):
            with pytest.raises(NotFound):
                async with scene.pool.use(unknown):
                    pass

    play(act)
