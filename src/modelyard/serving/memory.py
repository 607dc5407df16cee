"""Memory for models: a budget, what each has been given of it, and what the process really has."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_SHARE = 0.5  # of the machine's, unless a budget is set
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(slots=True, eq=False)
class Lease:
    """What one model takes of the budget, bytes: its files' size until it was measured. `settled`: it is loaded."""

    size: int
    settled: bool = False


@dataclass(slots=True)
class Memory:
    """The budget and its leases."""

    budget: int
    leases: list[Lease] = field(default_factory=list)

    @property
    def leased(self) -> int:
        return sum(lease.size for lease in self.leases)

    def lease(self, size: int) -> Lease | None:
        """None while it does not fit."""
        if self.leases and self.leased + size > self.budget:
            return None
        self.leases.append(Lease(size))
        return self.leases[-1]

    def release(self, lease: Lease) -> None:
        self.leases.remove(lease)

    def alone(self, lease: Lease) -> bool:
        """Whether no other model is being loaded, which would spoil the measurement."""
        return all(other.settled for other in self.leases if other is not lease)


def default_budget() -> int:
    """Half of what this process may have."""
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        total = min(total, int(_CGROUP.read_text()))
    return int(total * _SHARE)


def resident() -> int:
    """The process's memory, bytes."""
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Let the system have what was freed; allocators keep it otherwise."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
        if trim:
            trim(0)
