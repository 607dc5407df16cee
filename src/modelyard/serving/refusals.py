"""What servers say of requests that they refuse, and of those that lead to none of their routes."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request

_SHOWN, _LONGEST = 200, 1000


def one_line(message: str) -> str:
    """The message as one line, cut where it cites too much of a request."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def refusal(request: Request, error: HTTPException, *, see: str) -> str:
    """One line; `see` names where to look for what is there."""
    # Not of the whole address, whose query and host may be anything.
    path, method = request.scope["path"][:_SHOWN], request.method[:_SHOWN]
    if error.status_code == 404:
        return f"there is nothing at {path}; see {see}"
    if error.status_code == 405:
        # Starlette lists a set, in another order in every process; HEAD comes with GET.
        methods = sorted(set(Headers(error.headers)["allow"].split(", ")) - {"HEAD"})
        return f"{path} does not take {method}; use {', '.join(methods)}"
    return f"{method} {path}: {error.detail}"
