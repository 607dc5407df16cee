"""A stored file over HTTP: conditions, ranges, a redirect to the store where it can sign, else its bytes.

The entity tag is the file's sha256. What is streamed whole is hashed on the way, and its last part held back until
the hash is right: damaged bytes never make a complete answer. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from modelyard.api.threads import Threads
from modelyard.errors import IntegrityError, ModelyardError, NotFound
from modelyard.store import Store
from modelyard.store.blobs import StoredFile
from modelyard.store.documents import RESTORE

log = logging.getLogger("modelyard.api")

_SIGNED_FOR = timedelta(hours=1)
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


@dataclass(frozen=True, slots=True)
class FileSender:
    """Answers requests for files of one store; `presigned`: by sending clients there, where the store can sign."""

    store: Store
    threads: Threads
    presigned: bool

    def answer(self, request: Request, file: StoredFile, headers: Mapping[str, str]) -> Response:
        """The answer to GET or HEAD, with these headers too. Blocks.

        Raises IntegrityError when the stored bytes are not the registered ones, HTTPException for a range that is
        not there.
        """
        tag = f'"{file.sha256}"'
        head = {**headers, "etag": tag, "accept-ranges": "bytes"}
        if _matches(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers=head)
        # Files are what users registered: a browser must not take one for a page of this server.
        head |= {"content-type": "application/octet-stream", "x-content-type-options": "nosniff"}
        if request.method == "HEAD":
            return Response(headers=head | {"content-length": str(file.size)})
        asked = request.headers.get("range") if request.headers.get("if-range", tag) == tag else None
        span = parse_range(asked, file.size) if asked else None
        url = self.store.presign(file.key, expires=_SIGNED_FOR) if self.presigned else None
        if url is not None:
            return RedirectResponse(url, 302, head | {"cache-control": "no-store"})
        return self._stream(file, span, head)

    def _stream(self, file: StoredFile, span: range | None, head: dict[str, str]) -> Response:
        length = file.size if span is None else len(span)
        head["content-length"] = str(length)
        if span is not None:
            head["content-range"] = f"bytes {span.start}-{span.stop - 1}/{file.size}"
        chunks = whole(self.store, file) if span is None else part(self.store, file, span)
        first = next(chunks, None)
        return _Stream(first, chunks, self.threads, 200 if span is None else 206, head)


def parse_range(text: str, size: int) -> range | None:
    """The bytes that a Range header asks for; None for what is not understood, which is then ignored (RFC 9110, 14.2).

    Several ranges are not understood. Raises HTTPException 416 for a range outside the file.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        span = range(max(0, size - int(suffix)), size)
    elif last and int(last) < int(first):
        return None
    else:
        span = range(int(first), min(size, int(last) + 1 if last else size))
    if not span:
        raise HTTPException(416, "the range lies outside the file", {"content-range": f"bytes */{size}"})
    return span


def whole(store: Store, file: StoredFile) -> Iterator[bytes]:
    """All bytes, the last ones only when all of them are right. Raises IntegrityError."""
    sha, left, held = hashlib.sha256(), file.size, b""
    for chunk in _stored(store, file, 0, None):
        sha.update(chunk)
        left -= len(chunk)
        if left < 0:
            break
        if held:
            yield held
        held = chunk
    if left or sha.hexdigest() != file.sha256:
        raise _damaged(store, file)
    yield held


def part(store: Store, file: StoredFile, span: range) -> Iterator[bytes]:
    """Some of the bytes, which can't be verified alone. Raises IntegrityError if there are fewer."""
    left = len(span)
    for chunk in _stored(store, file, span.start, left):
        left -= len(chunk)
        yield chunk
    if left:
        raise _damaged(store, file)


def _stored(store: Store, file: StoredFile, start: int, length: int | None) -> Iterator[bytes]:
    try:
        yield from store.stream(file.key, start, length)
    except NotFound:
        raise _damaged(store, file) from None


def _damaged(store: Store, file: StoredFile) -> IntegrityError:
    return IntegrityError(f"{file.path} is not as registered: see {file.key} in {store.url}", remedy=RESTORE)


def _matches(header: str | None, tag: str) -> bool:
    """Whether an If-None-Match header names the tag, weakly or not, or any."""
    given = [each.strip().removeprefix("W/") for each in (header or "").split(",")]
    return tag in given or "*" in given


class _Stream(Response):
    """Bytes that are read as the client takes them, and no longer than it listens."""

    def __init__(
        self, first: bytes | None, chunks: Iterator[bytes], threads: Threads, status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(None, status, headers)
        self._first = first
        self._chunks = chunks
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(scope, send))
        watching = asyncio.create_task(_disconnect(receive))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not sending.done():
                sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        chunk = self._first
        try:
            while chunk is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await self._threads.run(next, self._chunks, None)
        except ModelyardError as error:
            # The answer has begun. Left without its end, the server cuts the connection, and the client sees that.
            log.error("%s was cut: %s", scope["path"], " ".join(str(error).split()))
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
