"""What room this machine has for replicas of a version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import psutil

from modelyard.deployment.preflight import RUNNING, Memory, Room
from modelyard.deployment.targets import gpu
from modelyard.deployment.targets.gpu import GpuMemory
from modelyard.deployment.targets.memory import resident, tree
from modelyard.repository import ModelVersion, Pin

_ENGINE = 300 * 2**20  # what an engine takes beside the model's files, roughly
_FILES = "by the size of its files"

Facts = Callable[[ModelVersion], dict[str, str]]  # what a version runs on


class Machine(Protocol):
    """The replicas that run, each with its version, and how many more may listen."""

    def peek_processes(self, model: str) -> list[tuple[Pin, psutil.Process]]: ...
    def free_ports(self) -> int: ...


def local_room(
    machine: Machine, facts: Facts, version: ModelVersion, read: Callable[[], GpuMemory | None] = gpu.read
) -> Room:
    """By a running replica of the version, else of another version of the model, else by the size of its files."""
    running = machine.peek_processes(version.name)
    own = [process for pin, process in running if pin == Pin(version.version, version.digest)]
    processes, files = own or [process for _, process in running], sum(file.size for file in version.files)
    largest = max(map(resident, processes), default=0)
    size, basis = (largest, RUNNING) if largest else (files + _ENGINE, _FILES)
    memory = Memory(psutil.virtual_memory().available, size, basis)
    seen = read() if facts(version)["device"] == "gpu" else None
    return Room(memory, machine.free_ports(), _gpu_memory(seen, processes, files) if seen else None)


def _gpu_memory(seen: GpuMemory, processes: Sequence[psutil.Process], files: int) -> Memory:
    """On the GPUs that a running replica uses; else on all of them, since nobody knows which a new one will take."""
    taken = [seen.of({each.pid for each in tree(process)}) for process in processes]
    largest = max(taken, key=lambda sizes: sum(sizes.values()), default={})
    if largest:
        return Memory(sum(seen.free[name] for name in largest), sum(largest.values()), RUNNING)
    return Memory(sum(seen.free.values()), files, _FILES)
