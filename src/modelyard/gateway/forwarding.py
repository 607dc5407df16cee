"""How requests are handed on: a route's backends as Envoy's weighted clusters, and what holds on the way. Pure."""

from __future__ import annotations

from typing import Any

from modelyard.gateway.clusters import or_else
from modelyard.gateway.detours import FALLBACK, HEADERS, MIRROR, Detour, first_fallback
from modelyard.gateway.replies import Document
from modelyard.gateway.routes import SERVED_HEADER, Backend, Mirror, Route, RouteTable

MODEL_HEADER = "x-modelyard-model"
KEY_HEADER = "x-modelyard-key"
USER_STATE = "modelyard.user"
TRANSFORM_FILTER = "envoy.filters.http.transform"
_LONGEST_S = 1e9  # what Envoy has room for, and more than anybody waits
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
# An engine may have begun with a request as soon as its headers were sent; before that, another replica may have it.
RETRY: Document = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.010s"},  # nobody was asked who needs to recover
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": 5,
}
# Two attempts at the replicas, then the fallback.
_RETRY_ELSEWHERE: Document = {
    **RETRY,
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": 2,
        },
    },
}
# The same key leads to the same version, as long as the weights are the same.
_STICKY: list[Document] = [
    {"header": {"header_name": KEY_HEADER}, "terminal": True},
    {"filter_state": {"key": USER_STATE}},
]


def forwarding(
    route: Route, table: RouteTable, match: Document, *, by_body: bool, detour: Detour | None = None
) -> Document:
    """A route of Envoy's that shares requests among the backends; `by_body`: their body names the model, so that is
    where the engine's own name belongs; `detour` is what they have come by."""
    after = detour.next if detour else first_fallback(route)
    mirror = None if detour else route.mirror
    shares = [
        _share(table.backend(backend), weight, or_else_to=after, by_body=by_body, told=route.task or detour is not None)
        for backend, weight in route.weights
    ]
    weighted: Document = {"clusters": shares}
    action: Document = {
        "weighted_clusters": weighted,
        # 0s: no limit on the whole answer, which may be a long stream; the listener's ends what makes no progress.
        "timeout": "0s" if route.timeout_s is None else f"{min(max(route.timeout_s, 0.001), _LONGEST_S):.3f}s",
    }
    if len(shares) > 1:
        weighted["use_hash_policy"] = True
        action["hash_policy"] = _STICKY
    if after:
        action["retry_policy"] = _RETRY_ELSEWHERE
    if mirror:
        action["request_mirror_policies"] = [_mirrored(mirror)]
    found = {"name": route.names[0], "match": match, "route": action}
    told = {HEADERS[FALLBACK]: after, HEADERS[MIRROR]: mirror.to if mirror else None}
    headers = [_header(name, value) for name, value in told.items() if value]
    return found | ({"request_headers_to_add": headers} if headers else {})


def renames(route: Route, table: RouteTable) -> bool:
    """Whether a request's body may have to be written anew, which Envoy does for a plain application/json alone."""
    return any(table.backend(backend).internal_name is not None for backend, _ in route.weights)


def _share(backend: Backend, weight: int, *, or_else_to: str | None, by_body: bool, told: bool) -> Document:
    """A backend and its part; `told`: which version is meant, as the request has another name."""
    # The answer of a fallback has its own label already.
    label = _header(MODEL_HEADER, backend.label, only_if_absent=or_else_to is not None)
    share: Document = {
        "name": or_else(backend) if or_else_to else backend.cluster,
        "weight": weight,
        "response_headers_to_add": [label],
    }
    if backend.pool or told:
        share["request_headers_to_add"] = [_header(SERVED_HEADER, backend.label)]
    if backend.remote:
        share["host_rewrite_literal"] = backend.remote.authority
    if by_body and backend.internal_name is not None:
        share["typed_per_filter_config"] = {TRANSFORM_FILTER: _renamed(backend.internal_name)}
    return share


def _mirrored(mirror: Mirror) -> Document:
    fraction = {"numerator": round(mirror.percent * 10_000), "denominator": "MILLION"}
    return {
        "cluster": MIRROR,
        "runtime_fraction": {"default_value": fraction},
        "disable_shadow_host_suffix_append": True,
    }


def _renamed(name: str) -> Document:
    """The body's `model` becomes what the engine calls it; everything else keeps its value."""
    body: dict[str, Any] = {"body_format": {"json_format": {"model": name.replace("%", "%%")}}, "action": "MERGE"}
    return {
        "@type": f"{_EXTENSIONS}.filters.http.transform.v3.TransformConfig",
        "request_transformation": {"body_transformation": body},
    }


def _header(name: str, value: str, *, only_if_absent: bool = False) -> Document:
    action = "ADD_IF_ABSENT" if only_if_absent else "OVERWRITE_IF_EXISTS_OR_ADD"
    return {"header": {"key": name, "value": value.replace("%", "%%")}, "append_action": action}
