"""The listener: what happens to a request before a route is chosen, and the shape of Envoy's own refusals. Pure.

It is part of the bootstrap and never changes while Envoy runs: a changed listener would cut open streams.
"""

from __future__ import annotations

from modelyard.gateway import access, limits, replies, telemetry
from modelyard.gateway.detours import HEADERS
from modelyard.gateway.forwarding import TRANSFORM_FILTER, USER_STATE
from modelyard.gateway.replies import Document, Problem
from modelyard.gateway.route_config import (
    DETOUR,
    DETOUR_STATE,
    JSON_FILTER,
    JSON_TYPES,
    METADATA,
    MODEL_STATE,
    NAME,
)
from modelyard.gateway.routes import SERVED_HEADER
from modelyard.settings import GatewaySettings

# The scheme that Envoy is told to write into every request.
_SCHEME = "http"
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_FILTERS = f"{_EXTENSIONS}.filters.http"
_STREAM_IDLE = "900s"
_SHORTLY = {"retry-after": "1"}
# What clients may not tell the gateway or an engine: all that has our prefix or Envoy's, but for the key.
_OURS = r"x-(?:envoy-.*|modelyard-(?:[^k].*|k[^e].*|ke[^y].*|key.+|k?e?))"


def listener(
    address: str, settings: GatewaySettings, *, routes: Document, scopes: Document, access_path: str
) -> Document:
    """The static listener on `address`, an IP address. `routes` and `scopes` are the sources of the routes and of the
    one scope that they are in, and the file at `access_path` what tokens are checked with."""
    manager = _connection_manager(NAME, settings)
    before, after = access.filters(access_path)
    manager |= {
        **_newest_routes(routes, scopes),
        "http_filters": _http_filters(settings, before, [*after, limits.limit_filter()]),
        **telemetry.connection_manager(settings),
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "early_header_mutation_extensions": [_removed({"safe_regex": {"regex": _OURS}})],
    }
    return {
        "name": NAME,
        "address": {"socket_address": {"address": address, "port_value": settings.port}},
        "filter_chains": [_chain(manager)],
    }


def scope() -> Document:
    """The scope of all requests that come from outside, and the routes in it."""
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
        "name": NAME,
        "route_configuration_name": NAME,
        "key": {"fragments": [{"string_key": _SCHEME}]},
    }


def inner_listener(name: str, settings: GatewaySettings, routes: Document) -> Document:
    """The static listener inside Envoy for one kind of detours (see detours.py)."""
    manager = _connection_manager(name, settings)
    manager["rds"] = {"route_config_name": NAME, "config_source": routes}
    manager["early_header_mutation_extensions"] = [_removed({"exact": SERVED_HEADER})]
    # First of all, and by a name that no route disables: without it a request would take the way it has come.
    detour = _noting("modelyard.detour", _state(DETOUR_STATE, f"{DETOUR}%REQ({HEADERS[name]})%"))
    manager["http_filters"] = [detour, *manager["http_filters"]]
    return {"name": name, "internal_listener": {}, "filter_chains": [_chain(manager)]}


def _chain(manager: Document) -> Document:
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}


def _newest_routes(routes: Document, scopes: Document) -> Document:
    """How a request finds its routes. Envoy keeps those that were there when a request's headers came, and looks again
    for routes in scopes only; but before a body has come, all replicas that they lead to may be gone. So there is one
    scope, of all requests, by what is the same in each."""
    scheme = {"header_value_extractor": {"name": ":scheme", "index": 0}}
    return {
        "scheme_header_transformation": {"scheme_to_overwrite": _SCHEME},
        "scoped_routes": {
            "name": NAME,
            "scope_key_builder": {"fragments": [scheme]},
            "rds_config_source": routes,
            "scoped_rds": {"scoped_rds_config_source": scopes},
        },
    }


def _connection_manager(name: str, settings: GatewaySettings) -> Document:
    return {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "server_name": NAME,
        "stream_idle_timeout": _STREAM_IDLE,
        "request_headers_timeout": "30s",
        "http_filters": _http_filters(settings, [], []),
        "local_reply_config": {"mappers": _mappers(settings.body_limit)},
    }


def _http_filters(settings: GatewaySettings, before: list[Document], after: list[Document]) -> list[Document]:
    """The filters, with those before the body is read and those after, when the model is known."""
    # What it notes, and that it comes after the body, are why the routes are looked at again.
    model = _state(MODEL_STATE, f"%DYNAMIC_METADATA({METADATA}:model)%")
    user = _state(USER_STATE, f"%DYNAMIC_METADATA({METADATA}:user)%", kind="envoy.hashable_string")
    return [
        *before,
        _filter("envoy.filters.http.buffer", "buffer.v3.Buffer", max_request_bytes=settings.body_limit),
        _filter(
            JSON_FILTER,
            "json_to_metadata.v3.JsonToMetadata",
            request_rules={
                "rules": _body_rules(),
                "allow_content_types": [replies.JSON],  # what most say, found without the pattern
                "allow_content_types_regex": {"regex": JSON_TYPES},
            },
        ),
        _noting("envoy.filters.http.set_filter_state", model, user),
        *after,
        *telemetry.http_filters(settings),
        _filter(TRANSFORM_FILTER, "transform.v3.TransformConfig"),
        _filter("envoy.filters.http.router", "router.v3.Router", suppress_envoy_headers=True),
    ]


def _body_rules() -> list[Document]:
    def note(key: str, value: str | None = None) -> Document:
        pair = {"metadata_namespace": METADATA, "key": key}
        return pair if value is None else {**pair, "value": value}

    model = {
        "selectors": [{"key": "model"}],
        "on_present": note("model"),
        "on_missing": note("problem", "missing"),
        "on_error": note("problem", "not_json"),
    }
    user = {"selectors": [{"key": "user"}], "on_present": note("user")}
    return [model, user, *telemetry.request_rules()]


def _noting(name: str, *states: Document) -> Document:
    return _filter(name, "set_filter_state.v3.Config", on_request_headers=list(states), clear_route_cache=True)


def _state(key: str, value: str, *, kind: str = "envoy.string") -> Document:
    """What is noted of a request for the routes to look at."""
    text = {"text_format_source": {"inline_string": value}, "omit_empty_values": True}
    return {"object_key": key, "factory_key": kind, "format_string": text, "skip_if_empty": True}


def _removed(names: Document) -> Document:
    kind = f"{_EXTENSIONS}.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    mutations = [{"remove_on_match": {"key_matcher": names}}]
    return {"name": "modelyard.headers", "typed_config": {"@type": kind, "mutations": mutations}}


def _filter(name: str, kind: str, **options: object) -> Document:
    return {"name": name, "typed_config": {"@type": f"{_FILTERS}.{kind}", **options}}


def _mappers(body_limit: int) -> list[Document]:
    """Envoy's own refusals, told apart by its response flags; the table's direct responses carry none."""
    kinds = [
        *access.refusals(),
        (_status(429), limits.LIMITED, limits.RETRY_AFTER),
        (_status(413), replies.too_large(body_limit), {}),
        (_flags("UH", "NC"), replies.NO_REPLICA, _SHORTLY),
        (_flags("UO"), replies.OVERLOADED, _SHORTLY),
        (_flags("UT", "SI", "DT", "UMSDR"), replies.TIMED_OUT, {}),
        (_flags("UF", "UC", "UR", "LR", "URX", "UPE"), replies.REPLICA_FAILED, _SHORTLY),
    ]
    return [
        mapper
        for condition, problem, headers in kinds
        for mapper in (
            _mapper({"and_filter": {"filters": [condition, _under_v2()]}}, problem, headers, oip=True),
            _mapper(condition, problem, headers, oip=False),
        )
    ]


def _mapper(condition: Document, problem: Problem, headers: dict[str, str], *, oip: bool) -> Document:
    return {
        "filter": condition,
        "status_code": problem.status,
        "body_format_override": problem.body(oip=oip),
        "headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in headers.items()
        ],
    }


def _status(code: int) -> Document:
    comparison = {"op": "EQ", "value": {"default_value": code, "runtime_key": "modelyard.unset"}}
    return {"status_code_filter": {"comparison": comparison}}


def _flags(*flags: str) -> Document:
    return {"response_flag_filter": {"flags": list(flags)}}


def _under_v2() -> Document:
    return {"header_filter": {"header": {"name": ":path", "string_match": {"prefix": "/v2"}}}}
