"""Detours: requests that go on inside Envoy under another name, as copies or because the first could not be reached.

They pass a listener inside Envoy, so the other name's route holds as a whole: its split, its label, its engine's own
name for the model. A header, which no client can set, tells that listener where to. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelyard.gateway.routes import Route, RouteTable

# Each is a listener inside Envoy and the cluster that leads to it; the value is the header that it reads.
FALLBACK, MIRROR = "modelyard-fallback", "modelyard-mirror"
HEADERS = {FALLBACK: "x-modelyard-fallback", MIRROR: "x-modelyard-mirror"}


@dataclass(frozen=True, slots=True)
class Detour:
    """`key` is the header's value, `route` what holds from there on, `next` the key of the fallback after it, if any.

    `arrives_as`: by what name a request may come under /v2/models, as the engine before has its own.
    """

    key: str
    route: Route
    next: str | None
    arrives_as: tuple[str, ...]


def first_fallback(route: Route) -> str | None:
    """The key of the detour that is taken when the route's backends can't be reached."""
    return _key(route, 0)


def detours(table: RouteTable) -> list[Detour]:
    """All that the table's routes lead into. A detour has no mirror, and the first route's fallbacks alone."""
    routes = {name: route for route in table.routes for name in route.names}
    found = [detour for route in table.routes for detour in _fallbacks(route, routes, table)]
    mirrored: dict[str, set[str]] = {}
    for route in table.routes:
        if route.mirror:
            mirrored.setdefault(route.mirror.to, set()).add(_path_name(route, table))
    return found + [Detour(to, routes[to], None, tuple(sorted(names))) for to, names in mirrored.items()]


def _fallbacks(route: Route, routes: dict[str, Route], table: RouteTable) -> Iterator[Detour]:
    before = {_path_name(route, table)}
    for index, name in enumerate(route.fallback):
        yield Detour(_key(route, index) or "", routes[name], _key(route, index + 1), tuple(sorted(before)))
        before.add(_path_name(routes[name], table))


def _key(route: Route, index: int) -> str | None:
    """With a space, which no name has, so that it is no mirror's key."""
    return f"{route.names[0]} {index + 1}" if index < len(route.fallback) else None


def _path_name(route: Route, table: RouteTable) -> str:
    return table.backend(route.weights[0][0]).path_name
