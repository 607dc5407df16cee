"""Rules: what the configuration says about routing, read again and again, and made part of the routes.

`apply` is pure. A rule that refers to what is not deployed has no effect until it is, so a rule never breaks a table.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Protocol

from modelyard.configuration.sections import TASK, External, RoutingRule, Variants
from modelyard.errors import ModelyardError
from modelyard.gateway.routes import MAX_WEIGHT, Backend, Mirror, Remote, Route

EXTERNAL = "external"  # the environment of engines that are run elsewhere, and what their labels end with

log = logging.getLogger("modelyard.rules")

Weights = Mapping[str, int]  # backend → weight


@dataclass(frozen=True, slots=True)
class Rules:
    """The sections of the configuration that decide about routes, each by its keys."""

    routing: Mapping[str, RoutingRule] = field(default_factory=dict)
    external: Mapping[str, External] = field(default_factory=dict)
    embeddings: Mapping[str, Variants] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for engine in self.external.values():
            Remote.parse(engine.url)


class Watched(Protocol):
    """A section of the configuration that is kept up to date, and why it may be an old one."""

    @property
    def parsed(self) -> Mapping[str, Any]: ...
    @property
    def problem(self) -> str: ...


@dataclass(slots=True)
class LatestRules:
    """The rules as they are now; of a section that can't be read or does not fit, as they were last."""

    watch: Callable[[str], Watched]  # raises ModelyardError while the section was never read
    _watched: dict[str, Watched] = field(default_factory=dict)
    _last: Rules = field(default_factory=Rules)
    _told: dict[str, str] = field(default_factory=dict)

    def read(self) -> Rules:
        for section in ("routing", "external", "embeddings"):
            try:
                if section not in self._watched:
                    self._watched[section] = self.watch(section)
                watched = self._watched[section]
                self._last = replace(self._last, **{section: watched.parsed})
                self._tell(section, watched.problem)
            except ModelyardError as error:
                self._tell(section, str(error))
        return self._last

    def _tell(self, section: str, problem: str) -> None:
        """Once, until it changes."""
        if problem and self._told.get(section) != problem:
            log.warning("the configuration section %s stays as it was: %s", section, problem)
        self._told[section] = problem


def apply(backends: Iterable[Backend], routes: Iterable[Route], rules: Rules) -> tuple[list[Backend], list[Route]]:
    """The backends and routes of what is deployed, with the rules made part of them."""
    elsewhere = _elsewhere(rules)
    known = {backend.id: backend for backend in (*backends, *elsewhere.values())}
    found = _with_external(routes, elsewhere)
    splits = {name: dict(route.weights) for route in found for name in route.names}
    found = [_split(route, rules, splits, known) for route in found]
    names = {name: dict(route.weights) for route in found for name in route.names}
    found = [_guarded(route, rules, names.keys()) for route in found]
    for route in found:
        bound = _rule(route, rules).max_requests
        for backend, _ in route.weights if bound else ():
            before = known[backend].max_requests
            known[backend] = replace(known[backend], max_requests=min(bound or 0, before or bound or 0))
    tasks = (_task(task, variants, names, known) for task, variants in sorted(rules.embeddings.items()))
    return list(known.values()), [*found, *(task for task in tasks if task)]


def mixed(parts: Iterable[tuple[int, Weights]]) -> dict[str, int]:
    """One set of weights: each part gets its own weight's share of the requests, and shares it by its weights."""
    shares: dict[str, Fraction] = {}
    for weight, weights in parts:
        total = sum(weights.values())
        for backend, own in weights.items() if total else ():
            shares[backend] = shares.get(backend, Fraction(0)) + Fraction(weight * own, total)
    whole = sum(shares.values(), Fraction(0))
    if not whole:
        return {}
    scale = math.lcm(*((share / whole).denominator for share in shares.values()))
    scale = min(scale, MAX_WEIGHT - len(shares))  # then rounded, and no part is lost
    return {backend: max(1, round(share / whole * scale)) for backend, share in shares.items() if share}


def _elsewhere(rules: Rules) -> dict[str, Backend]:
    """The engines that are run elsewhere, by their names at the gateway."""
    return {
        name: Backend(
            EXTERNAL,
            name.partition(":")[0],
            f"{name}@{EXTERNAL}",
            remote=Remote.parse(engine.url),
            internal_name=engine.model or name,
            engine=engine.engine,
        )
        for name, engine in rules.external.items()
    }


def _with_external(routes: Iterable[Route], elsewhere: Mapping[str, Backend]) -> list[Route]:
    """An engine elsewhere takes its name, even from a deployment, whose other names stay."""
    left = [replace(route, names=tuple(name for name in route.names if name not in elsewhere)) for route in routes]
    found = [Route((name,), ((backend.id, 1),)) for name, backend in elsewhere.items()]
    return [route for route in left if route.names] + found


def _rule(route: Route, rules: Rules) -> RoutingRule:
    """A name's rule holds for all names of its route; `name` comes before `name:production`."""
    return next((rules.routing[name] for name in route.names if name in rules.routing), RoutingRule())


def _split(route: Route, rules: Rules, names: Mapping[str, Weights], known: Mapping[str, Backend]) -> Route:
    """Parts that are not deployed, or of which nobody is ready, get nothing; if that leaves none, the rule is off."""
    split = _rule(route, rules).split
    model = known[route.weights[0][0]].model
    parts = [(weight, names[f"{model}:{part}"]) for part, weight in split.items() if f"{model}:{part}" in names]
    weights = mixed((weight, part) for weight, part in parts if _ready(part, known))
    return replace(route, weights=tuple(weights.items())) if weights else route


def _guarded(route: Route, rules: Rules, names: Iterable[str]) -> Route:
    """With its mirror, its fallbacks after those it has, and deadline; a name that leads nowhere is left out."""
    rule = _rule(route, rules)
    others = set(names) - set(route.names)
    mirror = rule.mirror if rule.mirror and rule.mirror.to in others else None
    return replace(
        route,
        mirror=Mirror(mirror.to, mirror.percent) if mirror else None,
        fallback=tuple(name for name in dict.fromkeys((*route.fallback, *rule.fallback)) if name in others),
        timeout_s=rule.timeout_s,
    )


def _task(task: str, variants: Variants, names: Mapping[str, Weights], known: Mapping[str, Backend]) -> Route | None:
    """The route of a task; while none of its models is ready, the one that should be answers 503."""
    parts = [(weight, names[name]) for name, weight in variants.variants.items() if name in names]
    weights = mixed((weight, part) for weight, part in parts if _ready(part, known)) or mixed(parts)
    return Route((TASK + task,), tuple(weights.items()), task=True) if weights else None


def _ready(weights: Weights, known: Mapping[str, Backend]) -> bool:
    return any(known[backend].ready for backend, weight in weights.items() if weight)
