"""Lists in pages, each leading to the next by a Link header (RFC 8288). Knows parameters and addresses, not items."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from modelyard.errors import InvalidInput

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and the cursor behind which the next ones come, if there are more."""

    items: Sequence[T]
    cursor: str | None

    def headers(self, request: Request, path: str) -> dict[str, str]:
        """The header that leads to the next page: at `path` of the application, with the request's other parameters."""
        if self.cursor is None:
            return {}
        others = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        query = urlencode([*others, ("cursor", self.cursor)])
        base = request.base_url  # not the whole address, whose query may be anything
        return {"link": f'<{base.scheme}://{base.netloc}{request.scope["root_path"]}{path}?{query}>; rel="next"'}


def page(request: Request, items: Sequence[T], key: Callable[[T], str], *, size: int) -> Page[T]:
    """The items behind the request's cursor, as many as its limit and `size` allow; `items` are sorted by `key`.

    Raises InvalidInput for a limit that is no number.
    """
    limit = request.query_params.get("limit", str(size))
    if not (limit.isascii() and limit.isdigit() and int(limit[:6]) > 0):
        raise InvalidInput(f"can't take {limit[:40]!r} as a limit", remedy="give a number from 1 on")
    begin = bisect_right(items, request.query_params.get("cursor", ""), key=key)
    end = begin + min(int(limit[:6]), size)
    found = items[begin:end]
    return Page(found, key(found[-1]) if found and end < len(items) else None)
