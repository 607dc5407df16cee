"""Access by token at the API: who may ask what of port 7071. Around the whole application, before anything else.

Knows the methods and which paths name a model; the check itself is in modelyard.access.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.access.roles import at_least
from modelyard.access.rules import Issuer, Rules
from modelyard.access.tokens import Identity, Unauthorized, bearer, verify
from modelyard.api.huggingface.missing import refused
from modelyard.api.threads import Threads
from modelyard.errors import MissingExtra, ModelyardError
from modelyard.settings import Role

_KEYS_KEPT_S = 300
# What names a model below /hf; there everything reads, also by POST.
_HUB = re.compile(r"/hf/api/models/(?P<asked>.+?)(?:/(?:revision|refs|tree|paths-info)(?:/.*)?)?")
_FILE = re.compile(r"/hf/(?P<asked>.+?)/resolve/.*")
_READING = {"GET", "HEAD", "OPTIONS"}


class Guard:
    """Lets through who may ask, once access is on; an identity goes along as `scope["state"]["identity"]`."""

    def __init__(self, app: ASGIApp, rules: Callable[[], Rules], issuer: Issuer | None) -> None:
        self._app = app
        self._rules = rules
        self._issuer = issuer
        self._threads = Threads(8)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            identity = await self._threads.run(self._check, scope)
        except ModelyardError as error:
            headers = error.headers if isinstance(error, Unauthorized) else {}
            await refused(error.status, str(error), headers)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> Identity | None:
        """None while access is off. Blocks. Raises Unauthorized and Refused."""
        rules = self._rules()
        if not rules.on:
            return None
        identity = verify(bearer(Headers(scope=scope).get("authorization")), rules, issuers_key=self._issuers_key)
        identity.require(at_least(needed(scope["method"], scope["path"])), model_asked(scope["path"]))
        return identity

    def _issuers_key(self, token: str) -> Any:
        return self._jwks.get_signing_key_from_jwt(token).key

    @cached_property
    def _jwks(self) -> Any:
        """The issuer's keys, fetched when they are first needed and again when one is unknown."""
        import ssl

        try:
            from jwt import PyJWKClient
        except ImportError as error:
            raise MissingExtra("PyJWT", "access") from error
        if self._issuer is None:
            raise Unauthorized("the token is of an issuer that is not known here")
        context = ssl.create_default_context(cafile=self._issuer.ca_file)
        return PyJWKClient(self._issuer.jwks_uri, lifespan=_KEYS_KEPT_S, timeout=5, ssl_context=context)


def needed(method: str, path: str) -> Role:
    """The least role that may do this."""
    reads = method in _READING or path == "/hf" or path.startswith("/hf/")
    return "viewer" if reads else "deployer"


def model_asked(path: str) -> str | None:
    """The model that a path is about; None for lists and everything else."""
    found = _HUB.fullmatch(path.rstrip("/")) or _FILE.fullmatch(path)
    return unquote(found["asked"]).strip("/") if found else None
