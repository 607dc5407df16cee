"""Carrying a wish out in thought: the plan, asked on a machine where everything goes well. Pure.

So what is told before a rollout can't differ from what the reconciler does.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace

from modelyard.deployment import canary
from modelyard.deployment.canary import GOOD, Advance, Hold, Moment, Reach
from modelyard.deployment.outcomes import outcome
from modelyard.deployment.plan import Fail, Finish, Limits, Plan, Replica, ReplicaState, Start, Stop, plan
from modelyard.deployment.promotion import plain
from modelyard.repository import Deployment, Pin

_LIMITS = Limits()
_ROUNDS = 2000
_MOMENT_S = 0.001  # more than nothing, so that what waits for a time to be over goes on


@dataclass(frozen=True, slots=True)
class Preview:
    """`steps` in words. `processes`: how many there are at most; `least`: how many ready replicas get requests at
    least, once the first one does. `note`: why it is not carried out as somebody might expect, if so."""

    steps: tuple[str, ...]
    processes: int
    before: int
    least: int
    note: str = ""


@dataclass(slots=True)
class _World:
    """Replicas start and stop at once; the gateway confirms at once."""

    deployment: Deployment
    replicas: dict[str, Replica] = field(default_factory=dict)
    now: float = 0.0
    words: list[str] = field(default_factory=list)
    traffic: str = ""  # what was said of it last
    names: itertools.count[int] = field(default_factory=itertools.count)

    def add(self, pin: Pin, state: ReplicaState, *, on_demand: bool = False) -> None:
        name = f"r{next(self.names)}"
        rollout = self.deployment.rollout
        routed = state == "ready"
        self.replicas[name] = Replica(
            name, "", "", pin, rollout, state, self.now, 1, routed=routed, on_demand=on_demand
        )

    def tick(self) -> bool:
        """Whether something happened."""
        decided = plan(self.deployment, list(self.replicas.values()), _LIMITS, Moment(self.now, GOOD))
        moved = self._route(decided)
        for step in decided.steps:
            self._do(step)
        starting = [r for r in self.replicas.values() if r.state == "starting"]
        self.replicas |= {r.id: replace(r, state="ready", unrouted_s=0.0) for r in starting}
        return bool(moved or starting or decided.steps)

    def ready(self) -> int:
        return sum(r.routed for r in self.replicas.values())

    def _route(self, decided: Plan) -> bool:
        before = {name for name, r in self.replicas.items() if r.routed}
        for name, r in self.replicas.items():
            self.replicas[name] = replace(
                r, routed=name in decided.routed, unrouted_s=None if name in decided.routed else 1.0
            )
        counts = Counter(r.pin for r in self.replicas.values() if r.routed)
        traffic = _traffic(self.deployment, counts, decided.share) if counts else ""
        if traffic and traffic != self.traffic:
            self.traffic = traffic
            self._say(traffic)
        return before != decided.routed

    def _do(self, step: object) -> None:
        match step:
            case Start(pin, on_demand):
                self._say(
                    f"load {pin} in the process for models on demand" if on_demand else f"start a replica of {pin}"
                )
                self.add(pin, "starting", on_demand=on_demand)
            case Stop(name):
                self._say(f"stop a replica of {self.replicas[name].pin}, when it has finished its requests")
                del self.replicas[name]
            case Finish() | Fail() | Reach() | Advance() | Hold():
                found = outcome(step, self.deployment, at=self.now, by="")
                self._say(
                    _wait(self.deployment)
                    if isinstance(step, Reach)
                    else ""
                    if isinstance(step, Advance)
                    else found.why
                )
                self.deployment = found.new

    def _say(self, words: str) -> None:
        if words:
            self.words.append(words)


def preview(asked: Deployment) -> Preview:
    """What carrying the wish out takes, if everything goes well."""
    world = _World(asked)
    if asked.serving and asked.serving_on_demand:
        world.add(asked.serving, "ready", on_demand=True)
    elif asked.serving:
        for _ in range((asked.serving_spec or asked.spec).replicas):
            world.add(asked.serving, "ready")
    before = most = least = len(world.replicas)
    for _ in range(_ROUNDS):
        happened = world.tick()
        most = max(most, len(world.replicas))
        least = min(least, world.ready())
        if happened:
            continue
        if world.deployment.progress.pause:
            world.deployment = world.deployment.resumed()
        elif (wait := _waiting(world)) is None:
            break
        else:
            world.now += wait + _MOMENT_S
    return Preview(tuple(_grouped(world.words)), most, before, least, plain(asked))


def _waiting(world: _World) -> float | None:
    """How long nothing happens; None: for ever."""
    now = world.deployment
    if step := canary.step(now):
        return step.pause_s or 0.0
    if not canary.warm(now, world.now):
        return None
    left = (now.switched or 0.0) + now.spec.strategy.keep_warm_s - world.now
    if now.replaced and left >= 1:
        world.words.append(f"keep the replicas of {now.replaced} ready for {left:.0f} s")
    return left


def _traffic(deployment: Deployment, counts: Counter[Pin], share: int | None) -> str:
    if len(counts) == 1:
        [(pin, count)] = counts.items()
        return f"{count} of {pin} {'gets' if count == 1 else 'get'} all requests"
    if share is not None:
        return f"{deployment.target} gets {share} % of the requests" if share else ""
    return "requests go to " + " and ".join(f"{count} of {pin}" for pin, count in counts.items())


def _wait(deployment: Deployment) -> str:
    step, analysis = canary.step(deployment), deployment.spec.strategy.analysis
    if step is None:
        return ""
    if step.weight == 0:
        return f"ask {deployment.target} the golden requests; go back if an answer is wrong"
    how = "wait until somebody resumes" if step.pause_s is None else f"wait {step.pause_s:g} s"
    if analysis is None:
        return how
    metrics = ", ".join(metric.check for metric in analysis.metrics)
    also = f", also by {metrics}" if metrics else ""
    if step.pause_s is None:
        return f"{how}; go back before if {deployment.target} is found to be worse than {deployment.serving}{also}"
    return f"{how}; go on if {deployment.target} is no worse than {deployment.serving}{also}, else go back"


def _grouped(words: list[str]) -> list[str]:
    """The same thing several times in a row is said once."""
    grouped = [(what, len(list(same))) for what, same in itertools.groupby(filter(None, words))]
    return [what if count == 1 else f"{what} ({count} times)" for what, count in grouped]
