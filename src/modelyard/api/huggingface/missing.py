"""What is not there, and errors in the shape that the Hub's clients understand.

Clients tell a missing model from a missing revision or file by the header `X-Error-Code`; `X-Error-Message` and the
body's `error` are what they show to people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from modelyard.errors import ModelyardError, NotFound
from modelyard.serving.refusals import one_line, refusal

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

ErrorCode = Literal["RepoNotFound", "RevisionNotFound", "EntryNotFound"]


class Missing(NotFound):
    """A NotFound that says of what kind; `commit` tells clients at which commit a file is absent, for their caches."""

    def __init__(self, kind: ErrorCode, message: str, *, remedy: str = "", commit: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.headers = {"x-error-code": kind} | ({"x-repo-commit": commit} if commit else {})


async def on_error(request: Request, error: Exception) -> Response:
    """The answer to a request that failed; a defect is named, and its traceback left to the server's log."""
    match error:
        case Missing():
            return refused(error.status, str(error), error.headers)
        case ModelyardError():
            return refused(error.status, str(error), {"retry-after": "1"} if error.status == 503 else {})
        case HTTPException():
            return refused(error.status_code, refusal(request, error, see="/openapi.json"), error.headers or {})
    return refused(500, f"internal error: {type(error).__name__}", {})


ON_ERROR: Mapping[Any, Any] = dict.fromkeys((ModelyardError, HTTPException, Exception), on_error)


def refused(status: int, message: str, headers: Mapping[str, str]) -> Response:
    """An error; it becomes one line."""
    line = one_line(message)
    # A header can hold neither letters beyond ASCII nor control characters, which paths may have.
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line).encode("ascii", "backslashreplace").decode()
    return JSONResponse({"error": line}, status, {**headers, "x-error-message": shown})
