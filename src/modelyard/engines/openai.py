"""OpenAI's protocol, which several engines speak: whole answers, and streams of server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from modelyard.engines.http import Client, as_object, message_of, path_for, refuse_stream
from modelyard.errors import EngineError

_PATHS = {"messages": "/v1/chat/completions", "prompt": "/v1/completions", "input": "/v1/embeddings"}
_STREAMED = {key: _PATHS[key] for key in ("messages", "prompt")}


def post(client: Client, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
    """A request to the endpoint that its keys call for."""
    refuse_stream(request)
    return as_object(client.post(path_for(_PATHS, request), {**request, "model": model_name}))


def stream(client: Client, model_name: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer. Raises StreamBroken when it ends without `[DONE]`."""
    path = path_for(_STREAMED, request)
    for line in client.lines(path, {**request, "model": model_name, "stream": True}):
        field, _, value = line.partition(":")
        if field not in ("data", "error"):  # other fields and comments carry nothing for us
            continue
        if value.strip() == "[DONE]":
            return
        yield chunk(client, value)
    raise client.broken("it ended without [DONE]")


def chunk(client: Client, text: str) -> dict[str, Any]:
    """One piece of a stream. Raises StreamBroken for what is no object, EngineError for one that tells an error."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise client.broken("a piece is not JSON") from error
    if not isinstance(found, dict):
        raise client.broken("a piece is no object")
    if "error" in found:
        raise EngineError(f"{client.engine} at {client.url} failed amid its answer: {message_of(text)}")
    return found
