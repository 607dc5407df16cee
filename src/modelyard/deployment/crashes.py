"""What is said of replicas that crash, for people: how often, why, and when the next try comes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.deployment.plan import CRASH_MEMORY_S, Replica, backoff


def crashes(replicas: Sequence[Replica]) -> str:
    """Of one model's replicas in one environment; empty if none has crashed lately."""
    ended = sorted(
        (r for r in replicas if r.state == "exited" and r.since_s <= CRASH_MEMORY_S), key=lambda r: r.since_s
    )
    if not ended:
        return ""
    newest = ended[0]
    own = [r for r in ended if r.pin == newest.pin]
    times = "once" if len(own) == 1 else f"{len(own)} times"
    words = f"{newest.pin} crashed {times} in {CRASH_MEMORY_S / 60:.0f} min: {newest.error or 'without a word'}"
    if any(r.pin == newest.pin and r.state in ("starting", "ready") and r.since_s < newest.since_s for r in replicas):
        return words
    wait = backoff(len(own)) - newest.since_s
    return f"{words}; next try in {wait:.0f} s" if wait > 0 else words
