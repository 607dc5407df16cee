"""The HTTP of the Hugging Face Hub and of whatever speaks it: documents, stretches of files, errors in our words.

Token, endpoint, proxies and offline mode follow huggingface_hub's own rules. Its errors are not passed on: they quote
addresses that are signed, and thereby secrets. Knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

import modelyard
from modelyard.errors import IntegrityError, InvalidInput, MissingExtra, NotFound, Refused, Unavailable
from modelyard.importer.remote import Passing, Patience

if TYPE_CHECKING:
    from httpx2 import Response

_TIMEOUT_S = 30
_MOST_JSON = 32 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LOG_IN = "set HF_TOKEN or run `hf auth login`"


@dataclass(frozen=True, slots=True)
class Hub:
    """One Hub. Opened with `connect`. `name` is its endpoint as people may see it."""

    name: str
    patience: Patience
    _endpoint: str = field(repr=False)
    _headers: Mapping[str, str] = field(repr=False)

    def documents(self, path: str, *, asked: Asked) -> Iterator[Any]:
        """A JSON document below the endpoint, and those that it names as its continuation."""
        url: str | None = f"{self._endpoint}/{path}"
        while url:
            document, url = self.patience.insist(f"hf://{asked.repository}", partial(self._document, url, asked))
            yield document

    def file(self, path: str, size: int, start: int, end: int, *, asked: Asked) -> Iterator[bytes]:
        """Bytes `start` to `end` of a file that is `size` bytes long. Raises Passing for what may pass."""
        url = f"{self._endpoint}/{asked.repository}/resolve/{quote(asked.revision, safe='')}/{quote(path)}"
        with self._get(url, asked, {"range": f"bytes={start}-{end - 1}"}) as response:
            skip, total = _offered(response, start)
            if total not in (None, size):
                raise IntegrityError(f"{path} is {total} bytes long, not {size} as listed", remedy="try again")
            wanted = end - start
            for chunk in response.iter_raw():
                data, skip = chunk[skip:], max(0, skip - len(chunk))
                if not data:
                    continue
                if len(data) > wanted and end == size:
                    raise IntegrityError(f"{path} is longer than the {size} bytes listed", remedy="try again")
                yield data[:wanted]
                wanted -= len(data)
                if wanted <= 0 and end < size:
                    return

    def _document(self, url: str, asked: Asked) -> tuple[Any, str | None]:
        with self._get(url, asked, {}) as response:
            data = bytearray()
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > _MOST_JSON:
                    raise InvalidInput(f"{self.name} answers more than {_MOST_JSON >> 20} MB where a list is due")
            following = response.links.get("next", {}).get("url")
        try:
            return json.loads(data), self._below(urljoin(url, following)) if following else None
        except (ValueError, RecursionError):
            raise InvalidInput(
                f"{self.name} does not answer as a Hugging Face Hub does", remedy="check HF_ENDPOINT"
            ) from None

    def _below(self, url: str) -> str:
        """An address to follow with the token: one of this Hub. A mirror may pass on the original's addresses."""
        from huggingface_hub.utils import fix_hf_endpoint_in_url

        mended: str = fix_hf_endpoint_in_url(url, self._endpoint)
        if not mended.startswith(f"{self._endpoint}/"):
            raise InvalidInput(f"{self.name} continues its list at another address", remedy="check HF_ENDPOINT")
        return mended

    @contextmanager
    def _get(self, url: str, asked: Asked, headers: Mapping[str, str]) -> Iterator[Response]:
        """An answer with a body to read. Redirects are followed; the token stays with the host it is meant for."""
        import httpx2
        from huggingface_hub.errors import OfflineModeIsEnabled
        from huggingface_hub.utils import get_session

        session = get_session()
        try:
            sent = {**self._headers, **headers}
            with session.stream("GET", url, headers=sent, timeout=_TIMEOUT_S, follow_redirects=True) as response:
                self._check(response, asked)
                yield response
        except OfflineModeIsEnabled:
            raise Unavailable(f"{self.name} is not asked: HF_HUB_OFFLINE is set", remedy="unset it") from None
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.TooManyRedirects, httpx2.InvalidURL):
            # Not chained: what it says may hold the token or a signed address.
            raise Unavailable(
                f"{self.name} can't be asked as it wants", remedy="check HF_ENDPOINT and the token"
            ) from None
        except httpx2.TimeoutException:
            raise Passing(f"no answer from {self.name} for {_TIMEOUT_S} s") from None
        except httpx2.ConnectError:
            raise Passing(f"{self.name} can't be reached") from None
        except httpx2.HTTPError:
            raise Passing(f"the connection to {self.name} broke") from None

    def _check(self, response: Response, asked: Asked) -> None:
        status, code = response.status_code, response.headers.get("x-error-code", "")
        said = response.headers.get("x-error-message", "")
        if status in (200, 206):
            return
        if status in _PASSING:
            raise Passing(f"{self.name} answered {status}", wait=_asked_to_wait(response))
        match code:
            case "RevisionNotFound":
                raise NotFound(
                    f"{asked.repository} has no revision {asked.revision!r}", remedy="name a branch, a tag or a commit"
                )
            case "EntryNotFound":
                raise NotFound(f"a file of {asked.repository} is not there any more", remedy="try again")
            case "GatedRepo":
                raise Refused(
                    f"{asked.repository} is gated",
                    remedy=f"accept its conditions at {self.name}/{asked.repository}, then {_LOG_IN}",
                )
        if "disabled" in said:
            raise Refused(f"{asked.repository} is disabled at {self.name}", remedy="choose another one")
        if status == 401 and said.startswith("Invalid credentials"):
            raise Refused(f"{self.name} does not take the token", remedy=_LOG_IN)
        if status in (401, 404):
            raise NotFound(
                f"there is no model {asked.repository} at {self.name}",
                remedy=f"check the name; if it is private, {_LOG_IN}",
            )
        if status == 403:
            raise Refused(f"the token may not read {asked.repository}", remedy="use one that may")
        raise Unavailable(f"{self.name} answered {status}", remedy="try again later")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about, for the error that may follow."""

    repository: str
    revision: str


def connect(patience: Patience) -> Hub:
    """The Hub of the environment. Raises MissingExtra."""
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "huggingface") from error
    endpoint = constants.ENDPOINT
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise InvalidInput("HF_ENDPOINT is no address", remedy="write https://host")
    # Compressed bytes can't be taken up in the middle.
    headers = {"user-agent": f"modelyard/{modelyard.__version__}", "accept-encoding": "identity"}
    if token := None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else _token():
        headers["authorization"] = f"Bearer {token}"
    return Hub(_without_user(endpoint), patience, endpoint, headers)


def _token() -> str | None:
    from huggingface_hub import get_token
    from huggingface_hub.errors import DeviceCodeError, OIDCError

    unusable = Refused("the Hugging Face token can't be used", remedy=_LOG_IN)
    try:
        token = get_token()
    except (OSError, ValueError, DeviceCodeError, OIDCError):
        raise unusable from None  # what is said of a token may hold it
    if token and not (token.isascii() and token.isprintable()):
        raise unusable
    return token


def _offered(response: Response, start: int) -> tuple[int, int | None]:
    """(bytes to skip, bytes of the whole file) of an answer to a request for what begins at `start`."""
    if response.status_code == 200:
        return start, _number(response.headers.get("content-length", ""))
    unit, _, said = response.headers.get("content-range", "").partition(" ")
    first, total = said.partition("-")[0], said.partition("/")[2]
    if unit != "bytes" or first != str(start):
        raise Passing("the answer holds another part of the file")
    return 0, _number(total)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _asked_to_wait(response: Response) -> float:
    """Seconds: Retry-After, or what is left of the window of a rate limit that is used up."""
    from huggingface_hub.utils import parse_ratelimit_headers

    after = response.headers.get("retry-after", "").strip()
    if after.isdecimal():
        return float(after)
    try:
        limit = parse_ratelimit_headers(response.headers)
    except ValueError:  # a number longer than any
        return 0
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else 0


def _without_user(endpoint: str) -> str:
    """An address that people may see: without what stands before an @."""
    parts = urlsplit(endpoint)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
