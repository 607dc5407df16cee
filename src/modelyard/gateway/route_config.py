"""RDS: a route table as Envoy's route configuration. Pure.

Under /v1 the body's `model` decides; json_to_metadata (see listener.py) has put it into the request's metadata, or has
noted there what is wrong with the body. Under /v2 the path decides. Envoy takes the first route that matches.
"""

from __future__ import annotations

import json
import re

from modelyard import __version__
from modelyard.gateway import access, limits, replies
from modelyard.gateway.openapi import openapi
from modelyard.gateway.replies import Document, Problem
from modelyard.gateway.routes import SERVED_HEADER, Backend, Route, RouteTable
from modelyard.settings import GatewaySettings

NAME = "modelyard"
METADATA = "modelyard"
MODEL_HEADER = "x-modelyard-model"
JSON_FILTER = "envoy.filters.http.json_to_metadata"
# application/json and application/…+json, with any parameters (.NET sends "; charset=utf-8").
JSON_TYPES = r"(?i)\s*application/(?:[a-z0-9!#$&^_.-]+\+)?json\s*(?:;.*)?"

_HEALTH: dict[str, Document] = {
    "/healthz": {"status": "ok"},
    "/readyz": {"status": "ok"},
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
}
_SELF: dict[str, Document] = {
    "/v2": {"name": NAME, "version": __version__, "extensions": []},
    "/openapi.json": openapi(),
}
_OPEN: Document = {"typed_per_filter_config": access.nobody_asked()}
# An engine may have begun with a request as soon as its headers were sent; before that, another replica may have it.
_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 3,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 5,
}
_IDLE_TIMEOUT = "900s"


def route_configuration(table: RouteTable, settings: GatewaySettings) -> Document:
    """The one RouteConfiguration. Answers that the gateway gives by itself come from the table, too."""
    routes = [
        *(_reply({"path": path}, body) | _OPEN for path, body in _HEALTH.items()),
        *(_reply({"path": path}, body) for path, body in _SELF.items()),
        _reply({"path": "/v1/models", "headers": [_method("GET")]}, _models(table)),
        *(_guarded(_route(_body_match(_one_of(route.names)), route, table), route, table) for route in table.routes),
        *(
            _guarded(_route(_path_match(route.names), route, table, rewrite=True), route, table)
            for route in _specific_first(table.routes)
        ),
        *_problems(table),
    ]
    bodies = [len(route["direct_response"]["body"]["inline_string"]) for route in routes if _has_body(route)]
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": NAME,
        "max_direct_response_body_size_bytes": max([4096, *bodies]),
        "virtual_hosts": [
            {
                "name": NAME,
                "domains": ["*"],
                "routes": routes,
                "typed_per_filter_config": access.everywhere(table.access),
                "retry_policy": _RETRY,
                "request_body_buffer_limit": settings.body_limit,
            }
        ],
    }


def _problems(table: RouteTable) -> list[Document]:
    unknown_body = replies.unknown_model(f"the model '%DYNAMIC_METADATA({METADATA}:model):120%'", table.names)
    unknown_path = replies.unknown_model("the model at '%REQ(:PATH):200%'", table.names)
    return [
        _problem({"prefix": "/v1/", "headers": [_method("POST"), _NOT_JSON_TYPE]}, replies.NOT_JSON_TYPE),
        _problem(_body_match({"string_match": {"safe_regex": {"regex": "(?s).*"}}}), unknown_body),
        _problem(_body_match({"present_match": True}), replies.MODEL_NOT_TEXT),
        _problem(_body_match({"string_match": {"exact": "missing"}}, key="problem"), replies.NO_MODEL),
        _problem(_body_match({"string_match": {"exact": "not_json"}}, key="problem"), replies.NOT_JSON),
        _problem({"prefix": "/v2/models/"}, unknown_path, oip=True),
        _problem({"path_separated_prefix": "/v2"}, replies.NO_SUCH_PATH, oip=True),
        _problem({"prefix": "/"}, replies.NO_SUCH_PATH),
    ]


def _models(table: RouteTable) -> Document:
    data = [{"id": name, "object": "model", "created": 0, "owned_by": NAME} for name in table.names]
    return {"object": "list", "data": data}


def _route(match: Document, route: Route, table: RouteTable, *, rewrite: bool = False) -> Document:
    backends = [table.backend(backend) for backend, _ in route.weights]
    clusters = [_share(backend, weight) for backend, (_, weight) in zip(backends, route.weights, strict=True)]
    # 0s: no limit on the whole answer, which may be a long stream; the idle time-out ends what makes no progress.
    action: Document = {"weighted_clusters": {"clusters": clusters}, "timeout": "0s", "idle_timeout": _IDLE_TIMEOUT}
    named: Document = {"name": route.names[0], "match": match, "route": action}
    if not rewrite:
        return named
    pattern = match["safe_regex"]["regex"]
    action["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": rf"/v2/models/{backends[0].model}\1"}
    # The path has decided; large tensors need not be parsed here.
    return {**named, "typed_per_filter_config": {JSON_FILTER: _DISABLED}}


def _guarded(forward: Document, route: Route, table: RouteTable) -> Document:
    """The same, for those who may, as often as they may."""
    filters = forward.get("typed_per_filter_config", {}) | access.on_route(table.access, route.names)
    limit = limits.on_route(table.limits, route.names, by_token=table.access.on)
    return forward | {"typed_per_filter_config": filters, "metadata": limit}


def _share(backend: Backend, weight: int) -> Document:
    share: Document = {
        "name": backend.cluster,
        "weight": weight,
        "response_headers_to_add": [_header(MODEL_HEADER, backend.label)],
    }
    if backend.pool:
        share["request_headers_to_add"] = [_header(SERVED_HEADER, backend.label)]
    return share


_NOT_JSON_TYPE = {
    "name": "content-type",
    "string_match": {"safe_regex": {"regex": JSON_TYPES}},
    "invert_match": True,
    "treat_missing_header_as_empty": True,
}
_DISABLED = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}


def _specific_first(routes: tuple[Route, ...]) -> list[Route]:
    """`ns/name` before `ns`, whose paths it would else look like."""
    return sorted(routes, key=lambda route: -max(name.count("/") for name in route.names))


def _path_match(names: tuple[str, ...]) -> Document:
    """/v2/models/<name> and what is below; ':' and '/' in a name may come percent-encoded."""
    spellings = (re.escape(name).replace(":", "(?::|%3[Aa])").replace("/", "(?:/|%2[Ff])") for name in sorted(names))
    return {"safe_regex": {"regex": rf"^/v2/models/(?:{'|'.join(spellings)})(/.*)?$"}}


def _body_match(value: Document, *, key: str = "model") -> Document:
    return {
        "prefix": "/v1/",
        "headers": [_method("POST")],
        "dynamic_metadata": [{"filter": METADATA, "path": [{"key": key}], "value": value}],
    }


def _one_of(names: tuple[str, ...]) -> Document:
    matchers = [{"string_match": {"exact": name}} for name in names]
    return {"or_match": {"value_matchers": matchers}} if len(matchers) > 1 else matchers[0]


def _method(method: str) -> Document:
    return {"name": ":method", "string_match": {"exact": method}}


def _header(name: str, value: str) -> Document:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _reply(match: Document, body: Document) -> Document:
    text = json.dumps(body, separators=(",", ":"))
    return {
        "match": match,
        "direct_response": {"status": 200, "body": {"inline_string": text}},
        "response_headers_to_add": [_header("content-type", replies.JSON)],
    }


def _problem(match: Document, problem: Problem, *, oip: bool = False) -> Document:
    reply = {"status": problem.status, "body_format": problem.body(oip=oip)}
    return {"name": problem.code, "match": match, "direct_response": reply}


def _has_body(route: Document) -> bool:
    return "body" in route.get("direct_response", {})
