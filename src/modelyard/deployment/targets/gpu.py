"""Memory of NVIDIA GPUs, as `nvidia-smi` tells it. Knows no replicas.

The columns are those of `nvidia-smi --help-query-gpu` and `--help-query-compute-apps`. What it does not tell, such as
the memory of a partitioned GPU (MIG) without permission, it writes in brackets: that row is left out.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

_TIME_S = 10.0  # it takes a second or two on machines whose driver sleeps
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """In bytes. `free` by the GPU's UUID, `used` by process id and UUID."""

    free: Mapping[str, int]
    used: Mapping[tuple[int, str], int]

    def of(self, processes: Collection[int]) -> dict[str, int]:
        """What these processes hold together, by the GPU's UUID."""
        found: dict[str, int] = {}
        for (process, gpu), size in self.used.items():
            if process in processes and gpu in self.free:
                found[gpu] = found.get(gpu, 0) + size
        return found


def read() -> GpuMemory | None:
    """None where nobody can tell: there is no driver, no GPU, or no right to see it."""
    try:
        found = parse(_ask("--query-gpu=uuid,memory.free"), _ask("--query-compute-apps=pid,gpu_uuid,used_memory"))
    except (OSError, subprocess.SubprocessError):
        return None
    return found if found.free else None


def parse(gpus: str, processes: str) -> GpuMemory:
    """`gpus`: lines of UUID and free MiB; `processes`: of process id, UUID and used MiB."""
    free = {gpu: int(size) * _MIB for gpu, size in _rows(gpus, 2)}
    used: dict[tuple[int, str], int] = {}
    for process, gpu, size in _rows(processes, 3):
        used[int(process), gpu] = used.get((int(process), gpu), 0) + int(size) * _MIB
    return GpuMemory(free, used)


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """The rows whose size is known."""
    for line in text.splitlines():
        row = [cell.strip() for cell in line.split(",")]
        if len(row) == columns and row[-1].isdecimal():
            yield row


def _ask(query: str) -> str:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIME_S, check=True).stdout
