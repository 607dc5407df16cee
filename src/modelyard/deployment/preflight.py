"""What can't work is found before a rollout begins: whether a machine has room for the replicas that it takes. Pure.

A process can't be refused memory that other processes take later; so this is a check, not a promise.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.deployment.preview import Preview, preview
from modelyard.deployment.targets.memory import parse_quantity
from modelyard.errors import Refused
from modelyard.repository import Deployment, DeploymentSpec

RUNNING = "as a running replica does"  # a basis; others are estimates


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that are `available`, bytes that one `replica` of a version will take, and how that is known (`basis`)."""

    available: int
    replica: int
    basis: str


@dataclass(frozen=True, slots=True)
class Room:
    """What a machine has left for a version: memory, `ports` for so many more processes, and memory of its GPUs where
    the version runs on one."""

    memory: Memory
    ports: int
    gpu: Memory | None = None


def check(model: str, asked: Deployment, room: Room) -> Preview:
    """Raises Refused for a rollout that there is no room for."""
    check_limit(model, asked.spec, room)
    seen = preview(asked)
    more = seen.processes - seen.before
    if more > room.ports:
        raise Refused(
            f"{model} needs {more} more replicas for a while, and there are ports for {room.ports}",
            remedy=_remedy(asked, seen, "give deployment.ports a wider range"),
        )
    for memory, kind in ((room.memory, "memory"), (room.gpu, "GPU memory")):
        if memory and more * memory.replica > memory.available:
            raise Refused(
                f"{model} needs {_count(more)} for a while, which takes {_size(more * memory.replica)} "
                f"({memory.basis}), and {_size(memory.available)} of {kind} are free",
                remedy=_remedy(asked, seen, "stop something, or take fewer --replicas"),
            )
    return seen


def check_limit(model: str, spec: DeploymentSpec, room: Room) -> None:
    """Raises Refused for replicas that would be ended at once, since they take more memory than they may."""
    limit, memory = spec.resources.memory, room.memory
    if limit and memory.basis == RUNNING and memory.replica > parse_quantity(limit):
        raise Refused(
            f"a replica of {model} takes {_size(memory.replica)} of memory, and resources.memory would be {limit}",
            remedy="give more; an empty value is no limit",
        )


def _remedy(asked: Deployment, seen: Preview, otherwise: str) -> str:
    """Doing with what is there, and what that costs."""
    count = asked.spec.replicas
    if not seen.before or (asked.spec.surge == 0 and asked.spec.strategy.kind == "rolling"):
        return otherwise
    left = (
        f"{count - 1} of {count} replicas answer meanwhile"
        if count > 1
        else "then nobody answers until the new version is ready"
    )
    return f"{otherwise}, or use --strategy rolling --surge 0 --unavailable 1 --keep-warm 0 ({left})"


def _count(more: int) -> str:
    return "one more replica" if more == 1 else f"{more} more replicas"


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
