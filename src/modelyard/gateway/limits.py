"""Limits on how often a token (or without tokens, an address) may ask for a model, inside Envoy. Pure.

Envoy keeps its counts as long as the filter that counts stays, and the filter stands in the listener, which never
changes. So all buckets there are equally fast, and a route says what one request costs: with a limit of 600 requests a
minute, a 600th of what a minute brings. A changed limit is a changed cost; nobody's count starts anew.

A bucket's size decides how many requests are taken at once, and can't come from a route. So there are buckets of many
sizes, each 2**(1/8) of the one before; a burst gets the next larger one, which is exact up to 11 and at most 9 % more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from modelyard.access.roles import model_of
from modelyard.configuration.sections import ANY_MODEL, RateLimit
from modelyard.gateway.access import ISSUERS, NAMESPACE, OWN
from modelyard.gateway.replies import Document, Problem

LIMITS = "modelyard.limits"
_NAME = "envoy.filters.http.local_ratelimit"
_STEPS = 8
_SMALLEST, _LARGEST = -12 * _STEPS, 3 * _STEPS  # from a 4096th of a minute's worth to eight minutes' worth
_A_MINUTES_WORTH = 60_000_000
_UNLIMITED = 2**32 - 1
_BUCKETS_KEPT = 65536
_ROUTE = "ROUTE_ENTRY"

LIMITED = Problem(429, "too many requests to this model in the last minute; slow down", "rate_limit_exceeded")
RETRY_AFTER = {"retry-after": f"%METADATA(ROUTE:{LIMITS}:retry_after)%"}


def limit_filter() -> Document:
    """The filter of the listener."""
    sizes = range(_SMALLEST, _LARGEST + 1)
    token = {"descriptor_key": "token", "source": "DYNAMIC"}
    callers: list[tuple[str, Document]] = [
        ("size", {"metadata": token | {"metadata_key": _key(NAMESPACE, OWN, "jti")}}),
        ("size", {"metadata": token | {"metadata_key": _key(NAMESPACE, ISSUERS, "sub")}}),
        ("address_size", {"remote_address": {}}),
    ]
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "modelyard",
        "filter_enabled": _always(),
        "filter_enforced": _always(),
        "token_bucket": {"max_tokens": _UNLIMITED, "tokens_per_fill": _UNLIMITED, "fill_interval": "1s"},
        "always_consume_default_token_bucket": False,
        "max_dynamic_descriptors": _BUCKETS_KEPT,
        "descriptors": [_bucket(kind, size) for kind in ("token", "remote_address") for size in sizes],
        "rate_limits": [
            {
                "actions": [_said("size", size), _said("model", "model"), caller],
                "hits_addend": {"format": f"%METADATA(ROUTE:{LIMITS}:cost)%"},
            }
            for size, caller in callers
        ],
    }
    return {"name": _NAME, "typed_config": config}


def on_route(limits: Mapping[str, RateLimit], names: tuple[str, ...], *, by_token: bool) -> Document:
    """`metadata` of a route that leads to the model of these names: its limit, else that of ANY_MODEL, else none."""
    model = model_of(names[0])
    limit = limits.get(model) or limits.get(ANY_MODEL)
    if limit is None:
        return {}
    per_minute = limit.requests_per_minute
    said = {
        "size" if by_token else "address_size": str(_size((limit.burst or per_minute) / per_minute)),
        "model": model,
        "cost": max(1, _A_MINUTES_WORTH // per_minute),
        "retry_after": str(math.ceil(60 / per_minute)),
    }
    return {"filter_metadata": {LIMITS: said}}


def _size(minutes: float) -> int:
    """The smallest of the sizes that holds so many minutes' worth."""
    return min(max(math.ceil(math.log2(minutes) * _STEPS - 1e-9), _SMALLEST), _LARGEST)


def _bucket(caller: str, size: int) -> Document:
    entries = [{"key": "size", "value": str(size)}, {"key": "model"}, {"key": caller}]  # without a value: any
    # A little more than the size says, so that rounding never takes a request away.
    room = math.ceil(_A_MINUTES_WORTH * 2 ** (size / _STEPS)) + 1
    bucket = {"max_tokens": room, "tokens_per_fill": _A_MINUTES_WORTH, "fill_interval": "60s"}
    return {"entries": entries, "token_bucket": bucket}


def _said(descriptor: str, key: str) -> Document:
    """What the route says; a route that does not say it is not limited."""
    return {"metadata": {"descriptor_key": descriptor, "metadata_key": _key(LIMITS, key), "source": _ROUTE}}


def _key(namespace: str, *path: str) -> Document:
    return {"key": namespace, "path": [{"key": key} for key in path]}


def _always() -> Document:
    return {"default_value": {"numerator": 100}}
