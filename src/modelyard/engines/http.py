"""One HTTP conversation with an engine: JSON out, JSON back, and everything that can go wrong as one of our errors."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelyard.errors import EngineError, InvalidInput, ModelyardError, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    import httpx
    from pydantic import SecretStr

CONNECT_TIMEOUT_S = 5.0
_ERRORS: dict[int, type[ModelyardError]] = {
    400: InvalidInput,
    401: Refused,
    403: Refused,
    404: NotFound,
    413: InvalidInput,
    422: InvalidInput,
    429: Unavailable,
    503: Unavailable,
}


class NotReachable(Unavailable):
    """Nobody listens at the engine's address."""


class StreamBroken(EngineError):
    """A streamed answer ended before its end."""


@dataclass(frozen=True)
class Client:
    """The client of one engine; connections are kept between requests. `start` says how to have the engine running."""

    engine: str
    url: str
    start: str
    timeout_s: float
    token: SecretStr | None = None  # for the gateway; it goes to no one else

    def post(self, path: str, document: dict[str, Any]) -> Any:
        """The JSON answer. Raises NotReachable, Unavailable, NotFound, InvalidInput or EngineError."""
        return self._json(self.send("POST", path, as_json(document)))

    def get(self, path: str) -> Any:
        """The JSON answer. Raises as `post` does."""
        return self._json(self.send("GET", path))

    def send(self, method: str, path: str, content: bytes | Iterable[bytes] | None = None) -> httpx.Response:
        """The whole answer, which is no error. Raises as `post` does."""
        with self._telling():
            response = self._http.request(method, path, content=content, headers=_JSON)
        self._refuse(response)
        return response

    def lines(self, path: str, document: dict[str, Any]) -> Iterator[str]:
        """The answer line by line, as it comes. Raises as `post` does, and StreamBroken once the answer has begun.

        Who stops before its end closes the connection, which tells the engine to stop too.
        """
        import httpx

        content = as_json(document)
        with self._telling(), self._http.stream("POST", path, content=content, headers=_JSON) as response:
            if response.is_error:
                response.read()
                self._refuse(response)
            try:
                yield from response.iter_lines()
            except httpx.TimeoutException:
                raise
            except httpx.HTTPError as error:
                raise self.broken(str(error)) from error

    def broken(self, why: str) -> StreamBroken:
        return StreamBroken(f"{self.engine} at {self.url} broke the stream off: {why}", remedy="ask again")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotReachable(f"no {self.engine} answers at {self.url}", remedy=self.start) from error
        except httpx.UnsupportedProtocol as error:
            raise InvalidInput(f"{self.url!r} is not an address: {error}", remedy="write it as http://…") from error
        except httpx.TimeoutException as error:
            raise Unavailable(
                f"{self.engine} at {self.url} did not answer within {self.timeout_s:g} s",
                remedy="try again, or raise engines.timeout_s",
            ) from error
        except httpx.HTTPError as error:
            raise EngineError(f"{self.engine} at {self.url} cut the connection: {error}") from error

    def _refuse(self, response: httpx.Response) -> None:
        if response.is_error:
            kind = _ERRORS.get(response.status_code, EngineError)
            raise kind(f"{self.engine} at {self.url} answered {response.status_code}: {message_of(response.text)}")

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise EngineError(f"{self.engine} at {self.url} gave an answer that is not JSON") from error

    @cached_property
    def _http(self) -> httpx.Client:
        import httpx

        try:
            http = httpx.Client(
                base_url=self.url,
                headers=bearer(self.token),
                timeout=httpx.Timeout(self.timeout_s, connect=min(CONNECT_TIMEOUT_S, self.timeout_s)),
                # Below what any engine keeps an idle connection for, so that none is used as it is being closed.
                limits=httpx.Limits(keepalive_expiry=2),
            )
        except httpx.InvalidURL as error:
            raise InvalidInput(f"{self.url!r} is not an address: {error}", remedy="write it as http://…") from error
        weakref.finalize(self, http.close)
        return http


_JSON = {"content-type": "application/json"}


def as_json(document: dict[str, Any]) -> bytes:
    """Raises InvalidInput for what JSON can't hold."""
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the request can't be written as JSON: {error}") from error


def bearer(token: SecretStr | None) -> dict[str, str]:
    """The header that shows the token, if there is one."""
    return {"authorization": f"Bearer {token.get_secret_value()}"} if token else {}


def path_for(paths: dict[str, str], request: dict[str, Any]) -> str:
    """The path of the first key that the request has. Raises InvalidInput."""
    for key, path in paths.items():
        if key in request:
            return path
    raise InvalidInput(f"the request has none of the keys {', '.join(paths)}")


def refuse_stream(request: dict[str, Any]) -> None:
    """Raises InvalidInput for a request to stream where a whole answer is to come."""
    if request.get("stream"):
        raise InvalidInput("predict gives whole answers", remedy="call stream instead")


def as_object(answer: Any) -> dict[str, Any]:
    """A JSON object. Raises EngineError for anything else."""
    if not isinstance(answer, dict):
        raise EngineError(f"the engine answered with a {type(answer).__name__} where an object was expected")
    return answer


def quoted(model_name: str) -> str:
    """A model's name as part of a path."""
    return quote(model_name, safe="/:@")


def message_of(text: str) -> str:
    """An engine's own error in one line: OpenAI's, Ollama's, TorchServe's or FastAPI's shape, or plain text."""
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    line = " ".join((found if isinstance(found, str) else json.dumps(found)).split())
    return line[:500] or "no reason given"
