"""RDS: a route table as Envoy's route configuration. Pure.

Under /v1 the body's `model` decides; the filters (see listener.py) have put it into the request's state, or have noted
in its metadata what is wrong with the body. Under /v2 the path decides. The routes stand in trees (see matching.py).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

from modelyard import __version__
from modelyard.gateway import access, limits, matching, replies
from modelyard.gateway.detours import Detour, detours
from modelyard.gateway.forwarding import RETRY, forwarding, renames
from modelyard.gateway.openapi import openapi
from modelyard.gateway.replies import Document, Problem
from modelyard.gateway.routes import Route, RouteTable
from modelyard.settings import GatewaySettings

NAME = "modelyard"
METADATA = "modelyard"
MODEL_STATE, DETOUR_STATE = "modelyard.model", "modelyard.detour"
DETOUR = "to "  # what the state of every request on a detour begins with
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
    "/v2": {"name": NAME, "version": __version__, "extensions": ["binary_tensor_data"]},
    "/openapi.json": openapi(),
}
_OPEN: Document = {"typed_per_filter_config": access.nobody_asked()}
_MODELS = "/v2/models/"
_POSTED = "/v1/(?:chat/completions|completions|embeddings|rerank)"


def route_configuration(table: RouteTable, settings: GatewaySettings) -> Document:
    """The one RouteConfiguration. Answers that the gateway gives by itself come from the table, too."""
    models = _reply({"path": "/v1/models"}, _models(table))
    fixed = [_reply({"path": path}, body) | _OPEN for path, body in _HEALTH.items()]
    fixed += [_reply({"path": path}, body) for path, body in _SELF.items()]
    longest = max(len(reply["direct_response"]["body"]["inline_string"]) for reply in (models, *fixed))
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": NAME,
        "max_direct_response_body_size_bytes": max(4096, longest),
        "virtual_hosts": [
            {
                "name": NAME,
                "domains": ["*"],
                "typed_per_filter_config": access.everywhere(table.access),
                "retry_policy": RETRY,
                "request_body_buffer_limit": settings.body_limit,
                **_matcher(table, models, fixed),
            }
        ],
    }


def _matcher(table: RouteTable, models: Document, fixed: list[Document]) -> Document:
    by_path = {
        "/v1/": _by_body(table),
        "/v1/models/": _described(table),
        "/v1/models": matching.routes(_only_get(), models, _nothing_there()),
        _MODELS: matching.routes(_unknown_path(table)),
        **dict(_by_path(table)),
    }
    no_v2 = _problem({"path_separated_prefix": "/v2"}, replies.NO_SUCH_PATH, oip=True)
    otherwise = matching.routes(*fixed, no_v2, _nothing_there())
    from_outside = matching.choose(matching.header(":path"), "prefix", by_path, otherwise)
    inside = {DETOUR + detour.key: matching.routes(*_detoured(detour, table)) for detour in detours(table)}
    # Routes may change while a request is on its way; it must not be taken for a new one, and come round again.
    gone = matching.routes(
        _problem({"prefix": "/v2"}, replies.NO_REPLICA, oip=True), _problem(_ANY, replies.NO_REPLICA)
    )
    on_detour = matching.choose(matching.state(DETOUR_STATE), "exact", inside, gone)
    return matching.choose(matching.state(DETOUR_STATE), "prefix", {DETOUR: on_detour}, from_outside)


def _by_body(table: RouteTable) -> Document:
    known = {name: matching.routes(*_called(route, table)) for route in table.routes for name in route.names}
    return matching.choose(matching.state(MODEL_STATE), "exact", known, matching.routes(*_body_problems(table)))


def _by_path(table: RouteTable) -> Iterator[tuple[str, Document]]:
    unknown = _problem(_ANY, replies.NOT_SERVED, oip=True)
    for route in table.routes:
        for path in itertools.chain.from_iterable(map(_paths, () if route.task else route.names)):
            yield path, matching.routes(_served_at(path, route, table), unknown)


def _called(route: Route, table: RouteTable) -> list[Document]:
    """The routes of what is sent to /v1 with a body that names the model."""
    post = {"prefix": "/v1/", "headers": [_method("POST")]}
    if not renames(route, table):
        return [_guarded(forwarding(route, table, post, by_body=True), route, table), _only_post(), _nothing_there()]
    plain = {**post, "headers": [_method("POST"), _PLAIN_JSON]}
    found = _guarded(forwarding(route, table, plain, by_body=True), route, table)
    return [found, _problem(post, replies.NOT_JSON_TYPE), _only_post(), _nothing_there()]


def _served_at(path: str, route: Route, table: RouteTable) -> Document:
    """The route of one model under /v2."""
    found = forwarding(route, table, {"path_separated_prefix": path}, by_body=False)
    found["route"]["prefix_rewrite"] = _MODELS + table.backend(route.weights[0][0]).path_name
    return _guarded(found | _UNREAD, route, table)


def _detoured(detour: Detour, table: RouteTable) -> list[Document]:
    """The routes of what comes by a detour, under both protocols. Each path has been rewritten for another engine."""
    by_body = forwarding(detour.route, table, {"prefix": "/v1/"}, by_body=True, detour=detour)
    came = "|".join(re.escape(name) for name in detour.arrives_as)
    pattern = rf"^{_MODELS}(?:{came})([/?].*)?$"
    by_path = forwarding(detour.route, table, {"prefix": _MODELS}, by_body=False, detour=detour)
    name = table.backend(detour.route.weights[0][0]).path_name.replace("\\", r"\\")
    by_path["route"]["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": rf"{_MODELS}{name}\1"}
    return [by_body, by_path | _UNREAD, _nothing_there()]


def _paths(name: str, below: str = _MODELS) -> list[str]:
    """The paths of a name: ':' may come percent-encoded (the listener has decoded '%2F')."""
    before, colon, after = name.partition(":")
    spellings = (":", "%3A", "%3a") if colon else ("",)
    return [f"{below}{before}{spelling}{after}" for spelling in spellings]


def _body_problems(table: RouteTable) -> list[Document]:
    unknown = replies.unknown_model(f"the model '%DYNAMIC_METADATA({METADATA}:model):120%'", table.names)
    return [
        _problem({"prefix": "/", "headers": [_method("POST"), _NOT_JSON_TYPE]}, replies.NOT_JSON_TYPE),
        _problem(_noted({"string_match": {"safe_regex": {"regex": "(?s).*"}}}), unknown),
        _problem(_noted({"present_match": True}), replies.MODEL_NOT_TEXT),
        _problem(_noted({"string_match": {"exact": "missing"}}, key="problem"), replies.NO_MODEL),
        _problem(_noted({"string_match": {"exact": "not_json"}}, key="problem"), replies.NOT_JSON),
        _only_post(),
        _nothing_there(),
    ]


def _unknown_path(table: RouteTable) -> Document:
    return _problem(_ANY, replies.unknown_model("the model at '%REQ(:PATH):200%'", table.names), oip=True)


def _only_post() -> Document:
    """What is asked by another method at a path that takes a body."""
    match = {"safe_regex": {"regex": _POSTED}, "headers": [_method("POST") | {"invert_match": True}]}
    return _problem(match, replies.ONLY_POST) | _header("allow", "POST")


def _only_get() -> Document:
    """What is asked by another method at the list of models, or at one of them."""
    match = {"path_separated_prefix": "/v1/models", "headers": [_method("GET") | {"invert_match": True}]}
    return _problem(match, replies.ONLY_GET) | _header("allow", "GET")


def _nothing_there() -> Document:
    return _problem(_ANY, replies.NO_SUCH_PATH)


def _described(table: RouteTable) -> Document:
    """Each model by its name, to GET alone."""
    known = {
        path: matching.routes(_only_get(), _reply({"path": path}, _model(name)))
        for name in table.names
        for path in _paths(name, below="/v1/models/")
    }
    unknown = _problem(_ANY, replies.unknown_model("the model at '%REQ(:PATH):200%'", table.names))
    return matching.choose(matching.header(":path"), "exact", known, matching.routes(_only_get(), unknown))


def _models(table: RouteTable) -> Document:
    return {"object": "list", "data": [_model(name) for name in table.names]}


def _model(name: str) -> Document:
    return {"id": name, "object": "model", "created": 0, "owned_by": NAME}


def _guarded(forward: Document, route: Route, table: RouteTable) -> Document:
    """The same, for those who may, as often as they may."""
    filters = forward.get("typed_per_filter_config", {}) | access.on_route(table.access, route.names)
    limit = limits.on_route(table.limits, route.names, by_token=table.access.on)
    return forward | {"typed_per_filter_config": filters, "metadata": limit}


_NOT_JSON_TYPE = {
    "name": "content-type",
    "string_match": {"safe_regex": {"regex": JSON_TYPES}},
    "invert_match": True,
    "treat_missing_header_as_empty": True,
}
_PLAIN_JSON = {"name": "content-type", "string_match": {"contains": replies.JSON}}
_ANY: Document = {"prefix": "/"}
_DISABLED = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
# Where the path decides, the body may hold large tensors, which need not be parsed.
_UNREAD: Document = {"typed_per_filter_config": {JSON_FILTER: _DISABLED}}


def _noted(value: Document, *, key: str = "model") -> Document:
    """A POST of whose body the filters have noted this."""
    return {
        "prefix": "/",
        "headers": [_method("POST")],
        "dynamic_metadata": [{"filter": METADATA, "path": [{"key": key}], "value": value}],
    }


def _method(method: str) -> Document:
    return {"name": ":method", "string_match": {"exact": method}}


def _reply(match: Document, body: Document) -> Document:
    text = json.dumps(body, separators=(",", ":"))
    return {
        "match": match,
        "direct_response": {"status": 200, "body": {"inline_string": text}},
        **_header("content-type", replies.JSON),
    }


def _header(name: str, value: str) -> Document:
    """What a route adds to its answers."""
    header = {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {"response_headers_to_add": [header]}


def _problem(match: Document, problem: Problem, *, oip: bool = False) -> Document:
    reply = {"status": problem.status, "body_format": problem.body(oip=oip)}
    return {"name": problem.code, "match": match, "direct_response": reply}
