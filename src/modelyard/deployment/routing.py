"""From deployments and replicas to the gateway's route table. Pure.

`name` and `name:production` mean the production deployment, `name:staging` the one in staging, `name:v1.2.0` that
version wherever it is ready, production first, and so does any other tag that points at it. Rules change that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.deployment import rules as routing_rules
from modelyard.deployment.plan import Replica
from modelyard.deployment.rules import Rules
from modelyard.gateway.routes import Backend, Endpoint, Route, RouteTable
from modelyard.refs import ModelRef
from modelyard.repository import Deployment, Pin

Deployments = Mapping[str, Mapping[str, Deployment]]  # environment → model → deployment
Tags = Mapping[str, Mapping[str, str]]  # model → tag → version
_PERCENT = 100  # in a route's weights
NO_TAGS: Tags = {}
NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Traffic:
    """The replicas that get requests, and those that get what none of these can take. All others finish what they have
    and get nothing new. `shares`: by environment and model, the target's part of the requests in percent, where it does
    not follow from the number of replicas."""

    routed: frozenset[str]
    standby: frozenset[str] = frozenset()
    shares: Mapping[tuple[str, str], int | None] = field(default_factory=dict)


def route_table(
    deployments: Deployments,
    replicas: Sequence[Replica],
    traffic: Traffic,
    tags: Tags = NO_TAGS,
    rules: Rules = NO_RULES,
) -> RouteTable:
    """Every deployed model under its names."""
    backends: list[Backend] = []
    routes: list[Route] = []
    versions: dict[str, tuple[bool, str]] = {}  # name:version → (has a ready replica, backend)
    pools = {r.environment: Endpoint(r.host, r.port) for r in replicas if r.on_demand and r.state == "ready"}
    for environment in sorted(deployments):  # production comes before staging
        for model, deployment in sorted(deployments[environment].items()):
            there = [r for r in replicas if (r.environment, r.model) == (environment, model) and r.state == "ready"]
            own, weights = _weights(environment, model, deployment, there, traffic, pools.get(environment))
            weights = _shared(weights, deployment, traffic.shares.get((environment, model)), own)
            backends += own
            if weights:
                routes.append(_route(_names(environment, model), weights, deployment, own))
            for backend in own:
                ready = weights.get(backend.id, 0) > 0 and backend.ready
                name = _versioned(backend)
                versions[name] = max(versions.get(name, (False, backend.id)), (ready, backend.id), key=_ready)
    routes += [Route((name, *_tagged(name, tags)), ((backend, 1),)) for name, (_, backend) in versions.items()]
    backends, routes = routing_rules.apply(backends, routes, rules)
    return RouteTable(tuple(backends), tuple(routes))


def _weights(
    environment: str,
    model: str,
    deployment: Deployment,
    there: Sequence[Replica],
    traffic: Traffic,
    pool: Endpoint | None,
) -> tuple[list[Backend], dict[str, int]]:
    """The versions' backends, and each one's share: its number of replicas in traffic."""
    serving = (deployment.serving, deployment.serving_on_demand)
    target = (deployment.target, deployment.spec.on_demand)
    backends: list[Backend] = []
    shares: dict[str, int] = {}
    for pin, on_demand in dict.fromkeys((serving, target, *((r.pin, r.on_demand) for r in there))):
        if pin is None:
            continue
        own = [r for r in there if (r.pin, r.on_demand) == (pin, on_demand)]
        if on_demand:
            backend = _pooled(environment, model, pin, pool)
        else:
            backend = _backend(environment, model, pin, own, traffic.routed | traffic.standby)
        backends.append(backend)
        shares[backend.id] = sum(r.id in traffic.routed for r in own)
    if not any(shares.values()):  # nobody is ready: the gateway answers 503 for the one that should be
        shares = {b.id: 1 for b in backends[:1]}
    deployed = deployment.serving or deployment.target
    return backends, {backend: share for backend, share in shares.items() if share and deployed}


def _shared(
    weights: dict[str, int], deployment: Deployment, share: int | None, backends: Sequence[Backend]
) -> dict[str, int]:
    """The weights when the target has a share of its own. Their sum is always the same and the target comes last: so a
    key that leads to it goes on leading to it while its share grows."""
    if share is None or deployment.target is None:
        return weights
    target = next((b.id for b in backends if b.id in weights and _is_target(b, deployment)), "")
    others = {backend: weight for backend, weight in weights.items() if backend != target}
    if not others or not target:
        return weights
    left, found = (100 - share) * _PERCENT, {target: share * _PERCENT}
    for backend, weight in reversed(others.items()):
        found[backend] = left * weight // sum(w for b, w in others.items() if b not in found)
        left -= found[backend]
    return {backend: weight for backend, weight in reversed(found.items()) if weight}


def _route(names: tuple[str, ...], weights: Mapping[str, int], deployment: Deployment, own: Sequence[Backend]) -> Route:
    """While another version stands beside the target, it takes what the target can't. Never the other way round: the
    target may have to be looked at before it gets requests.

    What gets nothing now stays in the route: a request that could not be handed on may be about to be tried again.
    """
    others = [b for b in own if not _is_target(b, deployment) and (deployment.under_way or b.ready)]
    if not others or not any(_is_target(b, deployment) for b in own):
        return Route(names, tuple(weights.items()))
    all_of_them = dict(weights) | {b.id: 0 for b in own if b.id not in weights}
    return Route(names, tuple(all_of_them.items()), fallback=(_versioned(others[0]),))


def _is_target(backend: Backend, deployment: Deployment) -> bool:
    return deployment.target is not None and backend.label.endswith(f"@{deployment.target.digest}")


def _backend(environment: str, model: str, pin: Pin, own: Sequence[Replica], reachable: frozenset[str]) -> Backend:
    return Backend(
        environment,
        model,
        _label(model, pin),
        _endpoints(own, reachable),
        keeps_connections=all(r.keeps_connections for r in own),
        internal_name=next((r.internal_name for r in own), None),
        engine=next((r.engine for r in own), ""),
    )


def _endpoints(replicas: Sequence[Replica], reachable: frozenset[str]) -> tuple[Endpoint, ...]:
    """Each address once: several replicas may be versions in one engine that runs on its own. It drains when all do."""
    found: dict[tuple[str, int], bool] = {}
    for replica in replicas:
        address = replica.host, replica.port
        found[address] = found.get(address, True) and replica.id not in reachable
    return tuple(Endpoint(host, port, draining) for (host, port), draining in found.items())


def _pooled(environment: str, model: str, pin: Pin, pool: Endpoint | None) -> Backend:
    """Its place in the environment's pool, which takes requests for all its versions or for none."""
    return Backend(environment, model, _label(model, pin), (pool,) if pool else (), pool=environment)


def _label(model: str, pin: Pin) -> str:
    return str(ModelRef(model, pin.version, digest=pin.digest))


def _versioned(backend: Backend) -> str:
    """`name:v1.2.0`"""
    return backend.label.partition("@")[0]


def _names(environment: str, model: str) -> tuple[str, ...]:
    return (model, f"{model}:production") if environment == "production" else (f"{model}:{environment}",)


def _tagged(name: str, tags: Tags) -> Iterator[str]:
    """The names by tag of a `name:version`."""
    model, _, version = name.rpartition(":")
    return (f"{model}:{tag}" for tag, tagged in sorted(tags.get(model, {}).items()) if tagged == version)


def _ready(candidate: tuple[bool, str]) -> bool:
    return candidate[0]
