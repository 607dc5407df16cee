"""Envoy's matchers as values: choosing among many routes costs one look-up, not a walk along all of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from modelyard.gateway.replies import Document

_TYPE = "type.googleapis.com/envoy"


def state(key: str) -> Document:
    """What a filter has noted of the request as filter state."""
    kind = f"{_TYPE}.extensions.matching.common_inputs.network.v3.FilterStateInput"
    return {"name": key, "typed_config": {"@type": kind, "key": key}}


def header(name: str) -> Document:
    kind = f"{_TYPE}.type.matcher.v3.HttpRequestHeaderMatchInput"
    return {"name": name, "typed_config": {"@type": kind, "header_name": name}}


def routes(*listed: Document) -> Document:
    """The first of these routes whose own match holds."""
    return {
        "action": {"name": "routes", "typed_config": {"@type": f"{_TYPE}.config.route.v3.RouteList", "routes": listed}}
    }


def choose(
    on: Document, how: Literal["exact", "prefix"], cases: Mapping[str, Document], otherwise: Document
) -> Document:
    """The case of the input's value, or of its longest prefix."""
    if not cases:
        return otherwise
    tree = {"input": on, f"{how}_match_map": {"map": dict(cases)}}
    return {"matcher": {"matcher_tree": tree, "on_no_match": otherwise}}
