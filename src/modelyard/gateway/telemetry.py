"""What Envoy tells of the requests it forwards: statistics, an access log, traces. Pure.

All is counted inside Envoy. A statistic is told apart by one tag of a few fields, as each tag costs every request; see
statistics.py for how it is read. What a client sends is never part of it, so that nobody can make it grow.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from modelyard.gateway.forwarding import MODEL_HEADER
from modelyard.gateway.replies import JSON, Document
from modelyard.gateway.route_config import JSON_TYPES, METADATA
from modelyard.settings import GatewaySettings

PREFIX = "modelyard"
TAG = "of"
SEPARATOR = "|"
REQUESTS, DURATION, FIRST_TOKEN = "requests", "duration", "first_token"
TOKENS = {"prompt": "prompt_tokens", "completion": "completion_tokens"}  # kind → its name in an answer's `usage`
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
MICROSECONDS = 1_000_000
TRACES_CLUSTER = "traces"

_USAGE = "modelyard.usage"
_STREAM, _STREAMED_USAGE = "stream", "streamed_usage"
_BACKEND = f"%RESP({MODEL_HEADER})%{SEPARATOR}%UPSTREAM_CLUSTER%"
_OUTCOME = f"{_BACKEND}{SEPARATOR}%RESPONSE_CODE%{SEPARATOR}%RESPONSE_FLAGS%"
_LIMITS = {"max_counters": 50_000, "max_histograms": 20_000}
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
# Only where answers are short texts: an answer is held back until it is parsed, and vectors are large.
_ANSWERS_WITH_TOKENS = ("/v1/chat/completions", "/v1/completions")
_LOG_LINE = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH):500%",
    "route": "%ROUTE_NAME%",
    "asked": f"%DYNAMIC_METADATA({METADATA}:model):200%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "detail": "%RESPONSE_CODE_DETAILS%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "model": f"%RESP({MODEL_HEADER})%",
    "replica": "%UPSTREAM_HOST%",
    **{name: f"%DYNAMIC_METADATA({_USAGE}:{kind})%" for kind, name in TOKENS.items()},
    "request_id": "%REQ(X-REQUEST-ID):100%",
    "trace_id": "%TRACE_ID%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "subject": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub):200%",
}


def connection_manager(settings: GatewaySettings) -> Document:
    """What the connection manager has beyond forwarding."""
    options: Document = {"always_set_request_id_in_response": True, "access_log": _access_logs(settings)}
    if settings.otlp_endpoint is not None:
        options["tracing"] = _tracing(settings, settings.otlp_endpoint)
    return options


def request_rules() -> list[Document]:
    """What to note of a request's body: whether a stream is asked for, and its usage."""
    paths = {_STREAM: (_STREAM,), _STREAMED_USAGE: ("stream_options", "include_usage")}
    return [
        {"selectors": [{"key": each} for each in path], "on_present": {"metadata_namespace": METADATA, "key": key}}
        for key, path in paths.items()
    ]


def http_filters(settings: GatewaySettings) -> list[Document]:
    """What reads the tokens from the answers."""
    if not settings.token_metrics:
        return []
    rules: list[Document] = [
        {
            "selectors": [{"key": "usage"}, {"key": name}],
            "on_present": {"metadata_namespace": _USAGE, "key": kind, "type": "NUMBER"},
        }
        for kind, name in TOKENS.items()
    ]
    parser = {
        "@type": f"{_EXTENSIONS}.content_parsers.json.v3.JsonContentParser",
        "rules": [{"rule": rule} for rule in rules],
    }
    streams = {
        "@type": f"{_EXTENSIONS}.filters.http.sse_to_metadata.v3.SseToMetadata",
        "response_rules": {"content_parser": {"name": "envoy.content_parsers.json", "typed_config": parser}},
    }
    answers = {
        "@type": f"{_EXTENSIONS}.filters.http.json_to_metadata.v3.JsonToMetadata",
        "response_rules": {
            "rules": rules,
            "allow_content_types": [JSON],
            "allow_content_types_regex": {"regex": JSON_TYPES},  # llama.cpp says its charset, too
        },
    }
    # Each event costs a parse, so streams are read for those alone who asked for the usage in them.
    return [
        {"name": "modelyard.tokens", "typed_config": _only_if(_path_is(_ANSWERS_WITH_TOKENS), answers)},
        {"name": "modelyard.tokens_of_streams", "typed_config": _only_if(_is_noted(_STREAMED_USAGE), streams)},
    ]


def bootstrap(settings: GatewaySettings) -> Document:
    """What the bootstrap has beyond the listener; its clusters are never routed to."""
    buckets = [round(seconds * MICROSECONDS) for seconds in BUCKETS_S]
    statistics: Document = {
        "stats_flush_interval": "1s",  # histograms are as old as that
        "stats_config": {"histogram_bucket_settings": [{"match": {"prefix": f"{PREFIX}."}, "buckets": buckets}]},
    }
    if settings.otlp_endpoint is None:
        return statistics
    address = urlsplit(settings.otlp_endpoint)
    socket = {"socket_address": {"address": address.hostname, "port_value": address.port or 80}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": socket}}]}
    cluster = {
        "name": TRACES_CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "dns_lookup_family": "V4_PREFERRED",
        "wait_for_warm_on_init": False,
        "load_assignment": {"cluster_name": TRACES_CLUSTER, "endpoints": [endpoint]},
    }
    return {**statistics, "static_resources": {"clusters": [cluster]}}


def _access_logs(settings: GatewaySettings) -> list[Document]:
    streamed = _noted(METADATA, _STREAM, {"bool_match": True})
    whole = _microseconds("DS_RX_BEG:DS_TX_END", "DS_RX_BEG:DS_TX_BEG")
    first = _microseconds("DS_RX_BEG:US_RX_BODY_BEG", "DS_RX_BEG:DS_TX_BEG")
    logs = [
        _statistics(counters=[{"stat": _stat(REQUESTS, _OUTCOME), "value_fixed": 1}]),
        _statistics(_status("GE", 100), histograms=[_histogram(DURATION, whole)]),
        _statistics(
            {"and_filter": {"filters": [_status("GE", 200), _status("LE", 299), streamed]}},
            histograms=[_histogram(FIRST_TOKEN, first)],
        ),
    ]
    if settings.token_metrics:
        logs += [
            _statistics(
                _noted(_USAGE, kind, {"present_match": True}),
                counters=[{"stat": _stat(name), "value_format": f"%DYNAMIC_METADATA({_USAGE}:{kind})%"}],
            )
            for kind, name in TOKENS.items()
        ]
    if settings.access_log is not None:
        file = {
            "@type": f"{_EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
            "path": str(settings.access_log.expanduser().resolve()),
            "log_format": {"json_format": _LOG_LINE, "omit_empty_values": True},
        }
        logs.append({"name": "envoy.access_loggers.file", "typed_config": file})
    return logs


def _tracing(settings: GatewaySettings, endpoint: str) -> Document:
    uri = endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"
    tracer = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "http_service": {"http_uri": {"uri": uri, "cluster": TRACES_CLUSTER, "timeout": "5s"}},
        "service_name": "modelyard-gateway",
    }
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": tracer},
        "random_sampling": {"value": settings.trace_percent},
        "spawn_upstream_span": True,
        "custom_tags": [{"tag": "modelyard.model", "value": f"%RESP({MODEL_HEADER})%"}],
    }


def _statistics(condition: Document | None = None, **what: list[Document]) -> Document:
    logger: Document = {
        "@type": f"{_EXTENSIONS}.access_loggers.stats.v3.Config",
        "stats_scope": {"prefix": PREFIX, **_LIMITS},
        **what,
    }
    named = {"name": "envoy.access_loggers.stats", "typed_config": logger}
    return named if condition is None else {**named, "filter": condition}


def _stat(name: str, of: str = _BACKEND) -> Document:
    return {"name": name, "tags": [{"name": TAG, "value_format": of}]}


def _histogram(name: str, value: str) -> Document:
    return {"stat": _stat(name), "unit": "Microseconds", "value_format": value}


def _microseconds(span: str, otherwise: str) -> str:
    """The first that there is: whoever is cut off has no end. A value that is not there is an error in Envoy's log."""
    spans = [{"command": "COMMON_DURATION", "param": f"{each}:us"} for each in (span, otherwise)]
    return f"%COALESCE({json.dumps({'operators': spans})})%"


def _status(op: str, code: int) -> Document:
    value = {"default_value": code, "runtime_key": "modelyard.unset"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def _noted(namespace: str, key: str, value: Document) -> Document:
    matcher = {"filter": namespace, "path": [{"key": key}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _only_if(predicate: Document, config: Document) -> Document:
    """A filter for the requests alone that the predicate is true of."""
    skip = {"@type": f"{_EXTENSIONS}.filters.common.matcher.action.v3.SkipFilter"}
    matcher = {
        "predicate": {"not_matcher": {"single_predicate": predicate}},
        "on_match": {"action": {"name": "skip", "typed_config": skip}},
    }
    return {
        "@type": f"{_EXTENSIONS}.common.matching.v3.ExtensionWithMatcher",
        "extension_config": {"name": "conditional", "typed_config": config},
        "xds_matcher": {"matcher_list": {"matchers": [matcher]}},
    }


def _path_is(paths: tuple[str, ...]) -> Document:
    """Whether the request is to one of these paths, with any query."""
    header = {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": ":path",
    }
    return {
        "input": {"name": "path", "typed_config": header},
        "value_match": {"safe_regex": {"google_re2": {}, "regex": rf"(?:{'|'.join(paths)})(?:\?.*)?"}},
    }


def _is_noted(key: str) -> Document:
    """Whether the request's body says so: filters behind the one that reads it see what it noted."""
    noted = {
        "@type": f"{_EXTENSIONS}.matching.common_inputs.network.v3.DynamicMetadataInput",
        "filter": METADATA,
        "path": [{"key": key}],
    }
    value = {
        "@type": f"{_EXTENSIONS}.matching.input_matchers.metadata.v3.Metadata",
        "value": {"bool_match": True},
    }
    return {
        "input": {"name": "noted", "typed_config": noted},
        "custom_match": {"name": "value", "typed_config": value},
    }
