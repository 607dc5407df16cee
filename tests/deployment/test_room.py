"""What room this machine has, by what `nvidia-smi` writes; the lines of the tests are in the form of real ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from modelyard.deployment.preflight import Memory
from modelyard.deployment.targets import gpu
from modelyard.deployment.targets.gpu import GpuMemory, parse
from modelyard.deployment.targets.room import local_room
from modelyard.repository import ModelVersion, Pin
from modelyard.repository.manifest import Artifact

from .bench import VERSION
from .builders import V1, V2

MIB = 2**20
FIRST, SECOND = "GPU-e82ab913-2d6b-1a55-89a8-9ad23a5a09cf", "GPU-f7c1496c-b7f5-b1d2-78ea-68826f778059"
GPUS = f"{FIRST}, 11254\n{SECOND}, 80994\n"
OWN = os.getpid()
APPS = f"{OWN}, {FIRST}, 69632\n{OWN}, {FIRST}, 518\n80613, {SECOND}, 518\n"
WEIGHTS = replace(VERSION, files=(Artifact("model.bin", "k", 900 * MIB, "0" * 64),))


@dataclass(frozen=True)
class Replicas:
    """This very process is the replica of each of these versions."""

    pins: tuple[Pin, ...] = ()

    def peek_processes(self, model: str) -> list[tuple[Pin, psutil.Process]]:
        assert model == "digit"
        return [(pin, psutil.Process()) for pin in self.pins]

    def free_ports(self) -> int:
        return 7


def on_gpu(_: ModelVersion) -> dict[str, str]:
    return {"device": "gpu"}


def on_cpu(_: ModelVersion) -> dict[str, str]:
    return {"device": "cpu"}


def test_what_nvidia_smi_writes() -> None:
    found = parse(GPUS, APPS)
    assert found.free == {FIRST: 11254 * MIB, SECOND: 80994 * MIB}
    assert found.of({OWN}) == {FIRST: (69632 + 518) * MIB}
    assert found.of({OWN, 80613}) == {FIRST: (69632 + 518) * MIB, SECOND: 518 * MIB}
    assert found.of({1}) == {}


@pytest.mark.parametrize("unknown", ["[N/A]", "[Not Supported]", "[Insufficient Permissions]", "[Unknown Error]"])
def test_what_nvidia_smi_does_not_tell(unknown: str) -> None:
    """Partitioned GPUs without permission, processes in other containers or under Windows."""
    assert parse(f"{FIRST}, {unknown}\n", "") == GpuMemory({}, {})
    found = parse(GPUS, f"1584, {FIRST}, {unknown}\n7500, {FIRST}, 25\n")
    assert (found.of({1584}), found.of({7500})) == ({}, {FIRST: 25 * MIB})


def test_without_a_gpu_nothing_is_known_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpu.read() is None
    program.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    program.chmod(0o755)
    assert gpu.read() is None
    program.write_text(f'#!/bin/sh\ncase "$1" in\n--query-gpu=*) echo "{FIRST}, [N/A]";;\nesac\n')
    assert gpu.read() is None


def test_the_program_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        f'"--query-gpu=uuid,memory.free --format=csv,noheader,nounits") printf "{GPUS}";;\n'
        f'"--query-compute-apps=pid,gpu_uuid,used_memory --format=csv,noheader,nounits") printf "{APPS}";;\n'
        "*) exit 2;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpu.read() == parse(GPUS, APPS)


def test_a_replica_takes_what_a_running_one_does() -> None:
    room = local_room(Replicas((V2, V1)), on_gpu, WEIGHTS, lambda: parse(GPUS, APPS))
    assert room.gpu == Memory(11254 * MIB, (69632 + 518) * MIB, "as a running replica does")
    assert room.memory.replica >= psutil.Process().memory_info().rss // 2
    assert (room.memory.basis, room.ports) == ("as a running replica does", 7)


def test_or_the_size_of_its_files() -> None:
    for apps in ("", f"{OWN}, {FIRST}, [N/A]\n"):
        room = local_room(Replicas((V1,)), on_gpu, WEIGHTS, lambda: parse(GPUS, apps))  # noqa: B023
        assert room.gpu == Memory((11254 + 80994) * MIB, 900 * MIB, "by the size of its files")
    first = local_room(Replicas(), on_gpu, WEIGHTS, lambda: None)
    assert (first.memory.replica, first.memory.basis) == (1200 * MIB, "by the size of its files")
    assert first.gpu is None


def test_a_version_on_the_cpu_needs_no_gpu() -> None:
    def unread() -> GpuMemory | None:
        raise AssertionError("nobody has to ask")

    assert local_room(Replicas(), on_cpu, WEIGHTS, unread).gpu is None
