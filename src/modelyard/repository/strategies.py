"""Strategies: how a version takes over from the one that serves, and what it is measured by meanwhile.

Values of the environments' journals. Carrying a strategy out is the deployment package's work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["rolling", "canary"]


@dataclass(frozen=True, slots=True)
class CanaryStep:
    """A share of the requests, in percent, and for how many seconds at least; None: until somebody resumes."""

    weight: int
    pause_s: float | None = None

    def __str__(self) -> str:
        return f"{self.weight} %"


@dataclass(frozen=True, slots=True)
class Expected:
    """A request, and what its answer must hold, numbers within the tolerance."""

    request: Mapping[str, Any]
    answer: Mapping[str, Any]
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True)
class CustomMetric:
    """A number that a function of the team's own gives for each version. `check` is its file and name, such as
    `quality.py:mean_error`, `source` what the file holds. The new version's number may be worse by `tolerance`, in the
    metric's own unit."""

    check: str
    better: Literal["lower", "higher"]
    tolerance: float = 0.0
    source: str = ""

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.source.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the new version is held against while both answer.

    `min_requests`: that each version must have answered before the new one can pass. `failure_margin`: how much larger
    its rate of failures may be. Its latency at `percentile` may be `latency_factor` times the old version's.
    `confidence`: of a judgement that it is worse. `interval_s`: between two looks. `max_wait_s`: how long a step waits
    beyond its pause for enough requests before it is paused. `golden` is asked of the new version before it gets any
    other request, as long as there is room for a replica that gets none. `metrics` are taken of both versions once each
    has answered `min_requests`.
    """

    min_requests: int = 100
    failure_margin: float = 0.01
    percentile: float = 0.95
    latency_factor: float = 1.5
    confidence: float = 0.99
    interval_s: float = 5.0
    max_wait_s: float = 900.0
    golden: tuple[Expected, ...] = ()
    metrics: tuple[CustomMetric, ...] = ()


@dataclass(frozen=True, slots=True)
class Strategy:
    """`rolling` replaces replicas bit by bit: at most `surge` more than wanted run, at most `unavailable` of them are
    missing. `canary` gives the new version a share of the requests, step by step, beside all old replicas, and ends as
    a rolling update. Old replicas stay ready for `keep_warm_s` after they have left traffic.
    """

    kind: Kind = "rolling"
    surge: int = 1
    unavailable: int = 0
    steps: tuple[CanaryStep, ...] = ()
    analysis: Analysis | None = None
    keep_warm_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a rollout does not go on by itself, and since when. `cause`: a step that says so, an analysis that can't
    tell, or somebody who asked for it."""

    cause: Literal["step", "analysis", "asked"]
    why: str
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rollout is. `step` counts from 0; `since`: when the new version got that step's share of the requests
    (seconds since the epoch), None while it does not have it yet. `released`: somebody resumed it, so that it waits
    for nothing more in this step.
    """

    step: int = 0
    since: float | None = None
    pause: Pause | None = None
    released: bool = False
