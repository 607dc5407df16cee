"""What a wish says about its rollout: options over the configuration, checked, as a strategy. Pure.

Also what somebody may do with a rollout under way: pause, resume, abort. Each is one change of a deployment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from modelyard.configuration.sections import ANY_MODEL, Rollout
from modelyard.deployment import canary
from modelyard.deployment.spec import changed
from modelyard.deployment.suite import Suite
from modelyard.errors import Conflict, InvalidInput
from modelyard.repository import (
    Analysis,
    CanaryStep,
    CustomMetric,
    Deployment,
    DeploymentSpec,
    Expected,
    Pause,
    Strategy,
)

_STEP = re.compile(r"(\d+)(?::(\d+(?:\.\d+)?|resume))?")
_METRIC = re.compile(r"([^:]+\.py:[A-Za-z_]\w*):(lower|higher)(?::(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?))?")
_WARM_S = 60.0  # what an analysed rolling update keeps the old replicas for, unless somebody says so
_GOLDEN_LIMIT = 256 * 1024  # characters, as each entry of the journal holds them


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """What a promotion says about its rollout; None: as configured. `steps`: percentages, each with its seconds or
    `resume` if it has them, such as `5:60,25:600,50:resume`; `metrics`: each as `quality.py:mean_error:lower:0.02`."""

    strategy: Literal["rolling", "canary"] | None = None
    steps: str | None = None
    step_pause_s: float | None = None
    surge: int | None = None
    unavailable: int | None = None
    keep_warm_s: float | None = None
    analysis: bool | None = None
    metrics: tuple[str, ...] | None = None


AS_CONFIGURED = RolloutOptions()


@dataclass(frozen=True, slots=True)
class Size:
    """What a wish says about replicas; None: as before. The strategy is its own; `changes` of anything else, as
    key=value."""

    replicas: int | None = None
    min_replicas: int | None = None
    strategy: Strategy = field(default_factory=Strategy)
    changes: tuple[str, ...] = ()

    def check(self) -> None:
        if self.replicas is not None and self.min_replicas is not None:
            raise InvalidInput("a model has replicas of its own or runs on demand", remedy="give only one of the two")
        if self.replicas is not None and self.replicas < 1:
            raise InvalidInput(
                f"{self.replicas} replicas can't serve", remedy="give at least 1, or use `modelyard undeploy`"
            )
        if self.min_replicas not in (None, 0):
            raise InvalidInput(
                f"at least {self.min_replicas} replicas can't be asked for", remedy="give 0, or replicas"
            )

    def spec(self, old: Deployment, default: int) -> DeploymentSpec:
        count = self.replicas or (old.spec.replicas if old.rollout else default)
        on_demand = self.min_replicas == 0 or (old.spec.on_demand and self.replicas is None)
        sized = replace(old.spec, replicas=count, min_replicas=0 if on_demand else None, strategy=self.strategy)
        return changed(sized, self.changes)


def strategy(
    options: RolloutOptions, configured: Mapping[str, Rollout], model: str, suite: Suite | None = None
) -> Strategy:
    """The strategy of a promotion; the files of its metrics are read elsewhere. Raises InvalidInput for options that
    contradict each other."""
    base = configured.get(model) or configured.get(ANY_MODEL) or Rollout()
    said = {f.name: getattr(options, f.name) for f in fields(options)}
    if options.strategy is None and (options.steps is not None or options.step_pause_s is not None):
        said["strategy"] = "canary"
    if options.metrics and options.analysis is None:
        said["analysis"] = True
    rules = base.model_copy(update={name: value for name, value in said.items() if value is not None})
    if rules.strategy == "rolling" and (options.steps is not None or options.step_pause_s is not None):
        raise InvalidInput("a rolling update has no steps", remedy="use --strategy canary, or leave --steps out")
    if options.metrics and not rules.analysis:
        raise InvalidInput("without an analysis nothing is measured", remedy="leave --no-analysis or --metric out")
    if rules.surge + rules.unavailable < 1:
        raise InvalidInput(
            "with no replica beyond those wanted and none that may be missing, nothing can be replaced",
            remedy="give --surge 1 or --unavailable 1",
        )
    analysis = _analysis(rules, suite)
    warm_s = rules.keep_warm_s or (_WARM_S if analysis and rules.strategy == "rolling" else 0.0)
    steps = parse_steps(rules.steps, rules.step_pause_s) if rules.strategy == "canary" else ()
    return Strategy(rules.strategy, rules.surge, rules.unavailable, steps, analysis, warm_s)


def plain(asked: Deployment) -> str:
    """Why a rollout has none of the steps and the analysis that its strategy speaks of; empty if nothing is amiss."""
    wanted = asked.spec.strategy.kind == "canary" or asked.spec.strategy.analysis is not None
    if asked.outcome != "running" or not wanted or canary.beside(asked):
        return ""
    if asked.serving is None:
        why = f"nothing serves yet to compare {asked.target} with"
    elif asked.serving == asked.target:
        why = f"{asked.target} serves already"
    else:
        why = "what runs on demand is not compared"
    return f"{why}, so this is a plain rollout, without steps or analysis"


def parse_steps(text: str, pause_s: float) -> tuple[CanaryStep, ...]:
    """Raises InvalidInput for what is no growing series of percentages."""
    steps = []
    for part in text.split(","):
        found = _STEP.fullmatch(part.strip())
        if found is None:
            raise InvalidInput(f"{part.strip()!r} is no step", remedy="write 5, 5:60 (seconds) or 5:resume")
        weight, wait = found.groups()
        steps.append(CanaryStep(int(weight), None if wait == "resume" else float(wait or pause_s)))
    weights = [step.weight for step in steps]
    if weights != sorted(set(weights)) or not 1 <= weights[0] <= weights[-1] <= 100:
        raise InvalidInput(f"{text} are no steps of a canary", remedy="give growing percentages from 1 to 100")
    return tuple(steps)


def parse_metric(text: str) -> CustomMetric:
    """Raises InvalidInput for what is none."""
    found = _METRIC.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(
            f"{text!r} is no metric",
            remedy="write FILE.py:FUNCTION:lower or :higher, and how much worse is allowed: quality.py:loss:lower:0.02",
        )
    check, better, tolerance = found.groups()
    return CustomMetric(check, "lower" if better == "lower" else "higher", float(tolerance or 0))


def back(spec: DeploymentSpec) -> Strategy:
    """How one goes back to an earlier version: at once, within the same room."""
    return Strategy(surge=spec.strategy.surge, unavailable=spec.strategy.unavailable)


def pause(now: Deployment, model: str, *, by: str, why: str, at: float) -> Deployment:
    """Raises Conflict when there is nothing to pause."""
    _need_rollout(now, model)
    if now.progress.pause:
        raise Conflict(
            f"the rollout of {model} is paused already: {now.progress.pause.why}", remedy="resume or abort it"
        )
    return now.paused(Pause("asked", why or f"{by} asked for it", by, at))


def resume(now: Deployment, model: str) -> Deployment:
    """Raises Conflict when there is nothing to resume."""
    _need_rollout(now, model)
    if now.progress.pause is None:
        raise Conflict(f"the rollout of {model} is not paused", remedy="see `modelyard status`")
    return now.resumed()


def abort(now: Deployment, model: str, *, by: str, why: str) -> Deployment:
    """Raises Conflict when there is nothing to abort."""
    _need_rollout(now, model)
    return now.failed(f"{by} aborted it" + (f": {why}" if why else ""))


def _need_rollout(now: Deployment, model: str) -> None:
    if not now.under_way:
        raise Conflict(f"no rollout of {model} is under way", remedy="see `modelyard status`")


def _analysis(rules: Rollout, suite: Suite | None) -> Analysis | None:
    wanted = rules.analysis if rules.analysis is not None else rules.strategy == "canary"
    if not wanted:
        return None
    metrics = tuple(parse_metric(text) for text in rules.metrics)
    return Analysis(**rules.bounds.model_dump(), golden=_golden(suite), metrics=metrics)


def _golden(suite: Suite | None) -> tuple[Expected, ...]:
    """The suite's golden requests, which tell a wrong answer from a right one."""
    golden = tuple(Expected(g.request, g.expect, g.tolerance) for g in suite.golden) if suite else ()
    if len(json.dumps([[dict(each.request), dict(each.answer)] for each in golden])) > _GOLDEN_LIMIT:
        raise InvalidInput(
            "the suite's golden requests are too large to be asked during a rollout",
            remedy="use smaller ones, or --no-analysis",
        )
    return golden
