"""Memory of local replicas: what each takes, and which take more than they may. Looking is done in other threads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import psutil

from modelyard.deployment.routing import Deployments

Key = tuple[str, str, str]  # environment, model, version

_INTERVAL_S = 2.0
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def memory_limits(deployments: Deployments) -> dict[Key, str]:
    """`resources.memory` of every version that has one, as it counts now: the newest wish for it."""
    found: dict[Key, str] = {}
    for environment, models in deployments.items():
        for model, deployment in models.items():
            before = deployment.serving_spec or deployment.spec
            for pin, spec in ((deployment.serving, before), (deployment.target, deployment.spec)):
                if pin:
                    found[environment, model, str(pin)] = spec.resources.memory
    return {key: limit for key, limit in found.items() if limit}


def parse_quantity(text: str) -> int:
    """Bytes in one of Kubernetes' quantities, such as `512Mi`."""
    number = text.rstrip("kmMGTi")
    return int(float(number) * _UNITS.get(text[len(number) :], 1))


def resident(process: psutil.Process) -> int:
    """What it and the processes that it has started hold in memory, in bytes."""
    total = 0
    for each in tree(process):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += int(each.memory_info().rss)
    return total


def tree(process: psutil.Process) -> list[psutil.Process]:
    """It and the processes that it has started; none when it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return [process, *process.children(recursive=True)]
    return []


@dataclass(slots=True)
class _Look:
    size: Future[int]
    at: float


@dataclass(slots=True)
class MemoryWatch:
    """`limits` may be replaced at any time; they count for what runs already, too."""

    executor: Executor
    limits: Mapping[Key, str] = field(default_factory=dict)
    _looks: dict[str, _Look] = field(default_factory=dict)

    def excess(self, replica_id: str, key: Key, process: psutil.Process | None) -> str:
        """In words, how a replica took more than it may when it was looked at last; empty if it did not."""
        limit, look, now = self.limits.get(key), self._looks.get(replica_id), time.monotonic()
        if limit is None or process is None or (look and not look.size.done()):
            return ""
        if look is None or now - look.at >= _INTERVAL_S:
            self._looks[replica_id] = _Look(self.executor.submit(resident, process), now)
        if look is None or look.size.result() <= parse_quantity(limit):
            return ""
        return f"it took {look.size.result() / 2**20:,.0f} MiB of memory, and resources.memory is {limit}"

    def keep(self, replica_ids: Iterator[str]) -> None:
        """Forget all others."""
        self._looks = {name: self._looks[name] for name in replica_ids if name in self._looks}
