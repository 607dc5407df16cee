"""What the staged replicas take of this machine, measured after everything else was asked of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import psutil

from modelyard.deployment.checks.base import Failed, Planned
from modelyard.deployment.checks.subject import Subject
from modelyard.deployment.suite import Resources, Suite
from modelyard.errors import Unavailable


def resources(suite: Suite, subject: Subject) -> Iterator[Planned]:
    if suite.resources:
        what = f"at most {suite.resources.memory / 1024**2:.0f} MiB resident in each replica"
        yield Planned("memory", what, partial(_memory, subject, suite.resources))


def _memory(subject: Subject, allowed: Resources) -> str:
    found = [resident for replica in subject.known.replicas() if (resident := resident_of(replica)) is not None]
    if not found:
        raise Unavailable(
            f"{subject.version.name}:{subject.version.version} has no replica on this machine whose memory can be seen",
            remedy="validate where it is staged with replicas of its own, or take resources out of the suite",
        )
    most, limit = max(found), allowed.memory
    detail = f"{most / 1024**2:.0f} MiB resident in the largest of {len(found)} replicas"
    if most > limit:
        raise Failed(f"{detail}, above {limit / 1024**2:.0f} MiB")
    return detail


def resident_of(replica: str) -> int | None:
    """Bytes that a replica's process and its children hold in memory; None when there is no such process here.

    The id stands on the command line, whatever the engine.
    """
    for process in psutil.process_iter(["cmdline"]):
        if replica in (process.info["cmdline"] or []):
            with contextlib.suppress(psutil.NoSuchProcess):
                return sum(_resident(each) for each in [process, *process.children(recursive=True)])
    return None


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:  # ended meanwhile
        return 0
