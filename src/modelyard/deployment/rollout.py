"""Waiting for a rollout that somebody else carries out: what its environment's journal says of it."""

from __future__ import annotations

import time

from modelyard.errors import Conflict, RolloutFailed
from modelyard.repository import Deployment, Environment

_POLL_S = 0.1


def wait_for_rollout(journal: Environment, model: str, asked: Deployment, *, timeout_s: float) -> Deployment:
    """The deployment once it is done. Raises RolloutFailed when it went back or takes too long, Conflict when another
    wish took over."""
    where, deadline = f"{model} in {journal.name}", time.monotonic() + timeout_s
    while True:
        now = journal.get(model)
        if now.rollout != asked.rollout:
            raise Conflict(f"another change of {where} took over", remedy="see `modelyard status`")
        if now.outcome == "failed":
            raise RolloutFailed(
                f"{where} went back to {now.serving or 'nothing'}: {now.reason}", remedy=f"see `modelyard logs {model}`"
            )
        if now.outcome == "done":
            return now
        if time.monotonic() > deadline:
            raise RolloutFailed(
                f"{where} is not done after {timeout_s:g} s; it goes on", remedy="see `modelyard status`"
            )
        time.sleep(_POLL_S)
