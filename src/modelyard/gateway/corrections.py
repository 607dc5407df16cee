"""Corrections: what an engine answers with 5xx although the client is wrong becomes a 400 in OpenAI's shape. Pure.

It happens on the way from the engine, so whatever counts or watches answers sees a refusal. The engine's own words
stay. All other answers pass as they come: the script looks at their status alone.
"""

from __future__ import annotations

import json

from modelyard.engines import ENGINES
from modelyard.gateway.replies import JSON, Document, Problem

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_MESSAGE = "@MESSAGE@"
_REFUSED = Problem(400, _MESSAGE, "invalid_request")
_NOT_SUPPORTED = Problem(400, _MESSAGE, "not_supported")
# A JSON string is looked for and put elsewhere as it stands, with its escapes. 501 is always a refusal; a 500 is the
# engine's own failure, unless its message begins with words that the engine is known for.
_SCRIPT = """
local begins = {%(begins)s}

local function message(text)
  local _, from = text:find('"message"%%s*:%%s*"')
  local at = from
  while at do
    at = text:find('["\\\\]', at + 1)
    if at and text:sub(at, at) == '"' then return text:sub(from + 1, at - 1) end
    at = at and at + 1
  end
end

local function problem(status, said)
  if status == "501" then return %(not_supported)s end
  for _, words in ipairs(begins) do
    if said:sub(1, #words) == words then return %(refused)s end
  end
end

function envoy_on_response(answer)
  local status = answer:headers():get(":status")
  if status ~= "500" and status ~= "501" then return end
  local body = answer:body()
  local said = body and message(body:getBytes(0, body:length()))
  local parts = said and problem(status, said)
  if parts then
    local length = body:setBytes(parts[1] .. said .. parts[2])
    local headers = answer:headers()
    headers:replace("content-length", length)
    headers:replace("content-type", "%(json)s")
    headers:replace(":status", "400")
  end
end
"""


def corrections(engine: str) -> Document:
    """Options of a cluster: the filters that correct this engine's answers, if it needs them."""
    begins = ENGINES[engine].refuses_with_500 if engine in ENGINES else ()
    if not begins:
        return {}
    script = _SCRIPT % {
        "begins": ", ".join(map(json.dumps, begins)),
        "not_supported": _parts(_NOT_SUPPORTED),
        "refused": _parts(_REFUSED),
        "json": JSON,
    }
    lua = {"@type": f"{_FILTERS}.lua.v3.Lua", "default_source_code": {"inline_string": script}}
    codec = {"@type": f"{_FILTERS}.upstream_codec.v3.UpstreamCodec"}
    return {
        "http_filters": [
            {"name": "modelyard.corrections", "typed_config": lua},
            {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
        ]
    }


def _parts(problem: Problem) -> str:
    """What stands before and after the message, as a table of Lua's."""
    before, after = json.dumps(problem.openai(), separators=(",", ":")).split(_MESSAGE)
    return f"{{[=[{before}]=], [=[{after}]=]}}"
