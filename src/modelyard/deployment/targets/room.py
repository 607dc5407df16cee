"""What room this machine has for replicas of a version."""

from __future__ import annotations

import psutil

from modelyard.deployment.preflight import Room
from modelyard.deployment.targets.local import LocalTarget
from modelyard.repository import ModelVersion, Pin

_ENGINE = 300 * 2**20  # what an engine takes beside the model's files, roughly


def local_room(target: LocalTarget, version: ModelVersion) -> Room:
    """By a running replica of the version, else of another version of the model, else by the size of its files."""
    running = target.peek_memory(version.name)
    own = running.get(Pin(version.version, version.digest))
    if own or running:
        size, basis = own or max(running.values()), "as a running replica does"
    else:
        size, basis = sum(file.size for file in version.files) + _ENGINE, "by the size of its files"
    return Room(psutil.virtual_memory().available, size, basis, target.free_ports())
