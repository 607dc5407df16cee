"""The pool: models that are loaded at their first request and unloaded when they are idle or when memory is short.

One event loop owns it; loading happens in threads. Knows exact versions by their labels `name:v1.0.0@sha256:…`. Where
their files come from, and which ones may be asked for, a Shelf says.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from modelyard.errors import InvalidInput, ModelyardError, NotFound, StoreError, Unavailable
from modelyard.refs import ModelRef
from modelyard.serving.batcher import QueueFull
from modelyard.serving.memory import Lease, Memory, give_back, resident
from modelyard.serving.models import NAME_SHOWN, LoadedModel, Served, load, warm_up
from modelyard.serving.runtimes import prepare
from modelyard.settings import ServingSettings

LOADS_AT_ONCE = 2
LEAST = 256 * 1024  # bytes that even the smallest model takes, with its thread
REMEMBERED_S = 10.0  # a failure; whoever asks meanwhile gets it without another try
_PASSING = (StoreError, Unavailable)  # not the model's fault: tried again at the next request, at most once a second
_PASSING_S = 1.0
_LABELS_INTERVAL_S = 2.0


class LoadFailed(ModelyardError):
    """The model can't be loaded; the message says why."""

    code, status = "load_failed", 500


class Shelf(Protocol):
    """Where versions come from. Both may take their time and are called in threads."""

    def labels(self) -> Iterable[str]:
        """The versions that may be asked for."""
        ...

    def take(self, label: str) -> Served:
        """A version and its verified files."""
        ...


@dataclass(slots=True, eq=False)
class _Place:
    """One version: loaded (`model`), being loaded (`loading`), or failed (`error`, until `forget`)."""

    label: str
    lease: Lease | None = None
    model: LoadedModel | None = None
    loading: asyncio.Task[None] | None = None
    error: ModelyardError | None = None
    forget: float = 0
    users: int = 0
    used: float = 0
    wanted: float = 0  # when it was last among the labels


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version as the pool's index tells of it."""

    ref: ModelRef
    loaded: bool
    reason: str = ""


@dataclass(slots=True)
class Pool:
    """Made inside a running event loop. `sweep` must be called every now and then."""

    shelf: Shelf
    settings: ServingSettings
    memory: Memory
    clock: Callable[[], float] = time.monotonic
    loaded: bool = True  # whether it takes requests; models come later
    stopping: bool = False
    _places: dict[str, _Place] = field(default_factory=dict)
    _labels: frozenset[str] = frozenset()
    _labels_at: float = float("-inf")
    _labels_task: asyncio.Task[None] | None = None
    _freed: bool = False
    _loads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOADS_AT_ONCE))
    _room: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def ready(self) -> bool:
        return self.loaded and not self.stopping

    @contextlib.asynccontextmanager
    async def use(
        self, text: str, label: str | None = None, *, patience_s: float | None = None
    ) -> AsyncIterator[LoadedModel]:
        """The model, which stays loaded as long as the block runs: the version that `label` names, else the one that
        `text` does. Raises NotFound, LoadFailed, and Unavailable when it is not there after `patience_s`."""
        place = await self._place(label or await self._label(text))
        if place.users > self.settings.queue_limit:
            raise QueueFull(f"{place.users} requests wait for {place.label} already", remedy="try again in a second")
        place.users += 1
        try:
            yield await self._loaded(place, patience_s if patience_s is not None else self.settings.ready_timeout_s)
        finally:
            place.users -= 1
            place.used = self.clock()
            if not place.users:
                await self._tell_room()

    async def unload(self, text: str) -> None:
        """Drop a model that nobody uses. Raises Unavailable while somebody does."""
        place = self._places.get(await self._label(text))
        if place and place.model:
            if place.users:
                raise Unavailable(f"{place.label} has requests under way", remedy="try again when they have ended")
            await self._drop(place, "it was asked to")

    async def index(self) -> list[Loaded]:
        """Every version that may be asked for."""
        await self._refresh()
        found = [(label, self._places.get(label)) for label in sorted(self._labels)]
        return [
            Loaded(ModelRef.parse(label), bool(p and p.model), str(p.error) if p and p.error else "")
            for label, p in found
        ]

    def all(self) -> Iterable[LoadedModel]:
        return [place.model for place in self._places.values() if place.model]

    def versions(self, name: str) -> list[str]:
        """Of those that may be asked for, the oldest first."""
        refs = (ModelRef.parse(label) for label in self._labels)
        return [str(version) for version in sorted(ref.version for ref in refs if ref.name == name and ref.version)]

    async def sweep(self) -> None:
        """Unload what has been idle for too long, or may not be asked for any more."""
        if self._labels and self.clock() - self._labels_at > _LABELS_INTERVAL_S:
            with contextlib.suppress(ModelyardError):  # as long as the store is away, what was known goes on
                await self._refresh()
        if self._freed:  # not at every unloading, since it takes a while
            self._freed = False
            await asyncio.to_thread(give_back)
        now = self.clock()
        for place in list(self._places.values()):
            if place.label in self._labels:
                place.wanted = now
            if place.users or place.loading:
                continue
            if place.model and now - place.wanted > self.settings.drain_timeout_s:
                await self._drop(place, "it is not deployed here any more")
            elif place.model and now - place.used > self.settings.idle_timeout_s:
                await self._drop(place, f"idle for {self.settings.idle_timeout_s:g} s")
            elif place.model is None and now > place.forget:
                self._places.pop(place.label, None)

    async def close(self) -> None:
        for place in list(self._places.values()):
            if place.loading:
                place.loading.cancel()
            if place.model and not place.model.batcher.busy:
                await place.model.batcher.close()

    # which version

    async def _label(self, text: str) -> str:
        """The label of `name` (the highest version here) or `name:version`."""
        await self._refresh(since=self._labels_at if self._labels else None)
        try:
            asked = ModelRef.parse(text)
        except InvalidInput:
            raise NotFound(f"no model {text[:NAME_SHOWN]!r} is served here") from None
        refs = [ref for ref in map(ModelRef.parse, self._labels) if _means(asked, ref)]
        versions = {ref.version: ref for ref in refs if ref.version}
        if not versions or (asked.tag and len(versions) > 1):
            raise NotFound(f"no model {text[:NAME_SHOWN]!r} is served here", remedy="see /v2/repository/index")
        return str(versions[max(versions)])

    async def _place(self, label: str) -> _Place:
        """Raises NotFound for what may not be asked for. What is loaded needs no look at the store."""
        place = self._places.get(label)
        if place is None:
            if label not in self._labels:
                await self._refresh()
            if label not in self._labels:
                raise NotFound(f"{label[:300]} is not served on demand here", remedy="see `modelyard status`")
            place = self._places.setdefault(label, _Place(label, wanted=self.clock()))
        return place

    async def _refresh(self, since: float | None = None) -> None:
        """Know the labels as they are now; one reading for all who ask meanwhile."""
        if since is not None and self._labels_at >= since:
            return
        if self._labels_task is None or self._labels_task.done():
            self._labels_task = asyncio.create_task(self._read_labels())
        await asyncio.shield(self._labels_task)

    async def _read_labels(self) -> None:
        self._labels = frozenset(await asyncio.to_thread(self.shelf.labels))
        self._labels_at = self.clock()

    # loading

    async def _loaded(self, place: _Place, patience_s: float) -> LoadedModel:
        if place.model is None:
            if place.error and self.clock() < place.forget:
                raise place.error
            if place.loading is None:
                place.loading = asyncio.create_task(self._load(place))
            try:
                await asyncio.wait_for(asyncio.shield(place.loading), patience_s)
            except TimeoutError:
                raise Unavailable(f"{place.label} is still loading", remedy="try again shortly") from None
        if place.model is None:
            raise place.error or Unavailable(f"{place.label} was not loaded", remedy="try again")
        return place.model

    async def _load(self, place: _Place) -> None:
        """Ends with a model or an error in its place; raises nothing of its own."""
        began = self.clock()
        try:
            async with self._loads:
                served = await asyncio.to_thread(self.shelf.take, place.label)
                size = max(LEAST, sum(file.size for file in served.version.files))
                place.lease = await self._lease(place, size)
                place.model = await self._bring(served, place.lease)
            place.used, place.error = self.clock(), None
            print(
                f"loaded {place.label} in {self.clock() - began:.2f} s, {place.lease.size >> 10} KiB", file=sys.stderr
            )
        except _PASSING as error:
            self._fail(place, error, _PASSING_S)
        except ModelyardError as error:
            failed = LoadFailed(error.message, remedy=error.remedy)
            self._fail(place, failed, REMEMBERED_S)
            print(f"{place.label} can't be loaded: {error}", file=sys.stderr)
        finally:
            place.loading = None
            if place.model is None and place.lease is not None:
                self.memory.release(place.lease)
                place.lease = None

    def _fail(self, place: _Place, error: ModelyardError, remembered_s: float) -> None:
        place.error, place.forget = error, self.clock() + remembered_s

    async def _bring(self, served: Served, lease: Lease) -> LoadedModel:
        """Load and measure; the library itself is no model's memory, so it comes first."""
        await asyncio.to_thread(prepare, served.version)
        alone, before = self.memory.alone(lease), resident()
        runtime = await asyncio.to_thread(load, served, trust_code=self.settings.trust_code)
        model = await warm_up(served.version, runtime, self.settings)
        if alone and self.memory.alone(lease):
            lease.size = max(lease.size, resident() - before)
        lease.settled = True
        return model

    async def _lease(self, place: _Place, size: int) -> Lease:
        """Memory for a model; the least recently used idle ones go first. Raises LoadFailed, Unavailable."""
        if size > self.memory.budget:
            raise LoadFailed(
                f"{place.label} needs {size} bytes, the budget for all models is {self.memory.budget}",
                remedy="raise serving.memory_budget, or give it replicas of its own",
            )
        deadline = self.clock() + self.settings.ready_timeout_s
        while (lease := self.memory.lease(size)) is None:
            idle = [p for p in self._places.values() if p.model and not p.users]
            if idle:
                await self._drop(min(idle, key=lambda p: p.used), "its memory is needed")
                continue
            left = deadline - self.clock()
            try:
                async with self._room:
                    await asyncio.wait_for(self._room.wait(), max(0.0, left))
            except TimeoutError:
                raise Unavailable(f"there is no memory for {place.label} now", remedy="try again later") from None
        return lease

    async def _drop(self, place: _Place, why: str) -> None:
        model, lease = place.model, place.lease
        place.model = place.lease = None
        self._places.pop(place.label, None)
        if model:
            await model.batcher.close()
        del model
        if lease:
            self.memory.release(lease)
        self._freed = True
        print(f"unloaded {place.label}: {why}", file=sys.stderr)
        await self._tell_room()

    async def _tell_room(self) -> None:
        async with self._room:
            self._room.notify_all()


def _means(asked: ModelRef, ref: ModelRef) -> bool:
    """A tag was decided by whoever sent the request; see Models.find."""
    same = asked.name == ref.name and asked.version in (None, ref.version)
    return same and asked.digest in (None, ref.digest)
