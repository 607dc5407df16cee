"""MLflow's REST API: documents, stretches of artifacts, and everything that can go wrong as one of our errors.

Credentials come from MLflow's own variables and never reach a message. Knows nothing of modelyard's models.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ValidationError

import modelyard
from modelyard.errors import InvalidInput, NotFound, Refused, Unavailable
from modelyard.importer.remote import Passing, Patience
from modelyard.store.documents import problem

if TYPE_CHECKING:
    import ssl

    import httpx

Document = TypeVar("Document", bound=BaseModel)

TIMEOUT_S = 60
_CHUNK = 1 << 20
_MOST_JSON = 64 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LOG_IN = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


@dataclass(frozen=True, slots=True)
class Server:
    """One MLflow server, open for the length of `connect`. `name` is its address as people may see it."""

    name: str
    patience: Patience
    http: httpx.Client = field(repr=False)

    def get(self, kind: type[Document], path: str, what: str, /, **query: str | int) -> Document:
        """A document below /api/2.0. Raises NotFound, naming `what`."""
        url = f"{self.name}/api/2.0/{path}"
        data = self.patience.insist(what, partial(self._document, url, what, query))
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            raise self._odd(problem(error)) from error

    def artifact(self, path: str, what: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to `end` of an artifact; older servers send the whole. Raises Passing for what may pass."""
        url = f"{self.name}/api/2.0/mlflow-artifacts/artifacts/{path}"
        with self._ask(url, what, headers={"range": f"bytes={start}-{end - 1}"}) as response:
            skip, wanted = (start, end - start) if response.status_code == 200 else (0, end - start)
            if response.status_code == 206 and not response.headers.get("content-range", "").startswith(
                f"bytes {start}-"
            ):
                raise Passing(f"{self.name} answered with another part of the file")
            for chunk in response.iter_bytes(_CHUNK):
                data, skip = chunk[skip:][:wanted], max(0, skip - len(chunk))
                wanted -= len(data)
                if data:
                    yield data
                if not wanted:
                    return

    def _document(self, url: str, what: str, query: Mapping[str, str | int]) -> Any:
        with self._ask(url, what, query) as response:
            data = bytearray()
            for chunk in response.iter_bytes(_CHUNK):
                data += chunk
                if len(data) > _MOST_JSON:
                    raise self._odd(f"more than {_MOST_JSON >> 20} MB of JSON")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._odd("no JSON") from None

    @contextmanager
    def _ask(
        self,
        url: str,
        what: str,
        query: Mapping[str, str | int] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """An answer with a body to read. Nothing is chained: what httpx says may quote credentials."""
        import httpx

        try:
            with self.http.stream("GET", url, params=dict(query or {}), headers=headers) as response:
                self._check(response, what)
                yield response
        except httpx.TimeoutException:
            raise Passing(f"no answer from {self.name} for {TIMEOUT_S} s") from None
        except httpx.ConnectError:
            raise Passing(f"{self.name} can't be reached") from None
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL):
            raise InvalidInput(f"{self.name} can't be asked", remedy="check the address") from None
        except httpx.HTTPError:
            raise Passing(f"the connection to {self.name} broke") from None

    def _check(self, response: httpx.Response, what: str) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status in _PASSING:
            raise Passing(f"{self.name} answered {status}", wait=_asked_to_wait(response))
        if status in (401, 403):
            raise Refused(f"{self.name} does not let us read {what}", remedy=_LOG_IN)
        if status in (400, 404):  # of an alias that is not there it says 400
            raise NotFound(f"there is no {what} at {self.name}", remedy="check the name and the address")
        if response.is_redirect:
            raise InvalidInput(f"{self.name} sends us elsewhere", remedy="write the address that it redirects to")
        raise Unavailable(f"{self.name} answered {status} when asked for {what}", remedy="see its log")

    def _odd(self, why: str) -> InvalidInput:
        return InvalidInput(f"{self.name} does not answer as MLflow does: {why}", remedy="check the address")


@contextmanager
def connect(address: str, patience: Patience, *, trusted: bool = True) -> Iterator[Server]:
    """The server at an address, or that of MLFLOW_TRACKING_URI. Only a `trusted` one is shown the credentials."""
    import httpx

    url = address or os.environ.get("MLFLOW_TRACKING_URI", "")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(
            "no MLflow server is named" if not url else "MLFLOW_TRACKING_URI is not the address of a server",
            remedy="write mlflow://host:port/…, or set MLFLOW_TRACKING_URI to http://host:port",
        )
    user, at, host = parts.netloc.rpartition("@")
    name = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    # Compressed bytes can't be taken up in the middle.
    headers = {"user-agent": f"modelyard/{modelyard.__version__}", "accept-encoding": "identity"}
    if trusted and (authorization := _authorization(unquote(user) if at else "")):
        headers["authorization"] = authorization
    verify = _tls() if parts.scheme == "https" else False
    with httpx.Client(timeout=httpx.Timeout(TIMEOUT_S, connect=10), headers=headers, verify=verify) as http:
        yield Server(name, patience, http)


def _authorization(user: str) -> str | None:
    """MLflow's own order: user and password before the token."""
    name, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if name and password:
        user = f"{name}:{password}"
    if user:
        return f"Basic {base64.b64encode(user.encode()).decode()}"
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "").strip()
    return f"Bearer {token}" if token else None


@cache
def _tls() -> ssl.SSLContext:
    """Loading the certificates takes longer than many a request."""
    import httpx

    return httpx.create_ssl_context()


def _asked_to_wait(response: httpx.Response) -> float:
    after = response.headers.get("retry-after", "").strip()
    return float(after) if after.isdecimal() and len(after) < 10 else 0


def without_user(url: str) -> str:
    """An address that people may see: without what stands before an @."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
