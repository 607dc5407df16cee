"""The listener: what happens to a request before a route is chosen, and the shape of Envoy's own refusals. Pure.

It is part of the bootstrap and never changes while Envoy runs: a changed listener would cut open streams.
"""

from __future__ import annotations

from modelyard.gateway import access, limits, replies, telemetry
from modelyard.gateway.replies import Document, Problem
from modelyard.gateway.route_config import JSON_FILTER, JSON_TYPES, METADATA, NAME
from modelyard.settings import GatewaySettings

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_STREAM_IDLE = "900s"
_SHORTLY = {"retry-after": "1"}


def listener(address: str, settings: GatewaySettings, rds_path: str, access_path: str) -> Document:
    """The static listener on `address`, an IP address."""
    return {
        "name": NAME,
        "address": {"socket_address": {"address": address, "port_value": settings.port}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _connection_manager(settings, rds_path, access_path),
                    }
                ]
            }
        ],
    }


def _connection_manager(settings: GatewaySettings, rds_path: str, access_path: str) -> Document:
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return {
        "@type": kind,
        "stat_prefix": NAME,
        "server_name": NAME,
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "stream_idle_timeout": _STREAM_IDLE,
        "request_headers_timeout": "30s",
        "rds": {
            "route_config_name": NAME,
            "config_source": {"resource_api_version": "V3", "path_config_source": {"path": rds_path}},
        },
        "http_filters": _http_filters(settings, access_path),
        "local_reply_config": {"mappers": _mappers(settings.body_limit)},
        **telemetry.connection_manager(settings),
    }


def _http_filters(settings: GatewaySettings, access_path: str) -> list[Document]:
    def note(key: str, value: str | None = None) -> Document:
        pair = {"metadata_namespace": METADATA, "key": key}
        return pair if value is None else {**pair, "value": value}

    model_rule = {
        "selectors": [{"key": "model"}],
        "on_present": note("model"),
        "on_missing": note("problem", "missing"),
        "on_error": note("problem", "not_json"),
    }
    first, later = access.filters(access_path)
    return [
        *first,
        {
            "name": "envoy.filters.http.buffer",
            "typed_config": {"@type": f"{_FILTERS}.buffer.v3.Buffer", "max_request_bytes": settings.body_limit},
        },
        {
            "name": JSON_FILTER,
            "typed_config": {
                "@type": f"{_FILTERS}.json_to_metadata.v3.JsonToMetadata",
                "request_rules": {
                    "rules": [model_rule, *telemetry.request_rules()],
                    "allow_content_types_regex": {"regex": JSON_TYPES},
                },
            },
        },
        *later,
        limits.limit_filter(),
        *telemetry.http_filters(settings),
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{_FILTERS}.router.v3.Router", "suppress_envoy_headers": True},
        },
    ]


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
