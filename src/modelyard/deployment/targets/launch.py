"""How replicas are started: what a target is told by those who know engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.refs import ModelRef


@dataclass(frozen=True, slots=True)
class Launch:
    """How a replica is started, the path that answers 200 once it can take requests, and whether it keeps connections
    open from one request to the next. `endpoint` is where requests go when that is not the replica's own port;
    `internal_name` what `engine` insists on as their `model`."""

    argv: list[str]
    ready_path: str
    keeps_connections: bool = True
    engine: str = ""
    endpoint: tuple[str, int] | None = None
    internal_name: str | None = None


# (exact reference, replica id, port); the id must stand in argv, it is how the process is known again.
Launcher = Callable[[ModelRef, str, int], Launch]
PoolLauncher = Callable[[str, str, int], Launch]  # the same, with an environment instead of a reference
