"""What the gateway itself answers, in the error shapes of the two protocols it speaks.

OpenAI's shape under /v1 and everywhere else, Open Inference Protocol's under /v2. Knows no routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAMES_SHOWN = 20
JSON = "application/json"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer that is not a model's. `message` may hold Envoy's %COMMAND% operators."""

    status: int
    message: str
    code: str
    param: str | None = None

    def openai(self) -> Document:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def oip(self) -> Document:
        return {"error": self.message}

    def body(self, *, oip: bool) -> Document:
        """Envoy's SubstitutionFormatString; as JSON, so what a request says is escaped."""
        return {"json_format": self.oip() if oip else self.openai(), "content_type": JSON}


def unknown_model(asked: str, names: Sequence[str]) -> Problem:
    return Problem(404, f"{asked} is not served here; {served(names)}", "model_not_found", "model")


def served(names: Sequence[str]) -> str:
    """A line that names what is served, bounded: models by their bare names, if there are any."""
    if not names:
        return "nothing is served yet"
    shown = ([name for name in names if ":" not in name] or names)[:NAMES_SHOWN]
    more = len(names) - len(shown)
    return f"served: {', '.join(shown)}" + (f" and {more} more; see /v1/models" if more else "")


NO_MODEL = Problem(400, 'the request body names no \'model\'; send {"model": "<name>", …}', "missing_model", "model")
MODEL_NOT_TEXT = Problem(400, "'model' in the request body is not a string", "invalid_model", "model")
NOT_JSON = Problem(400, "the request body is not valid JSON; send a JSON object", "invalid_json")
NOT_JSON_TYPE = Problem(
    415,
    "the content type is not JSON; send a JSON body with 'Content-Type: application/json'",
    "unsupported_media_type",
)
NO_SUCH_PATH = Problem(404, "there is nothing at %REQ(:PATH):200%; see /v1/models and /v2", "not_found")

ONLY_POST = Problem(405, "%REQ(:PATH):200% takes POST only, with a JSON body", "method_not_allowed")
ONLY_GET = Problem(405, "%REQ(:PATH):200% takes GET only", "method_not_allowed")

NOT_SERVED = Problem(404, "the model at '%REQ(:PATH):200%' is not served here; see /v1/models", "model_not_found")

NO_REPLICA = Problem(503, "no replica of this model is ready; try again shortly", "no_ready_replica")
OVERLOADED = Problem(503, "too many requests wait for this model; try again shortly", "overloaded")
REPLICA_FAILED = Problem(503, "the replica that had this request went away; try again", "replica_failed")
TIMED_OUT = Problem(504, "the model did not answer in time", "timeout")


def too_large(limit: int) -> Problem:
    return Problem(413, f"the request body is over the limit of {limit} bytes; send less", "body_too_large")
