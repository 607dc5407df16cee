"""Tokens: signed claims (JWT, RFC 7519, with Ed25519, RFC 8037), made and checked.

Knows keys and claims; not where they are kept, and not what is asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modelyard.access.roles import EVERY_MODEL, ROLES, covers, model_of
from modelyard.access.rules import ALGORITHM, CLOCK_SKEW_S, OWN_ISSUER, Issuer, Rules
from modelyard.errors import InvalidInput, MissingExtra, Refused, Unavailable
from modelyard.settings import Role

if TYPE_CHECKING:
    from modelyard.access.keys import SigningKey

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_DURATION = re.compile(r"(\d{1,6})([mhd])")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 3650 * 86400
_ISSUERS_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
_REMEDY = "send 'Authorization: Bearer <token>'; `modelyard token create` makes one"

KeyFinder = Callable[[str], Any]  # a token of the issuer → the issuer's key for it


class Unauthorized(Refused):
    """No token, or none that counts."""

    code, status = "unauthorized", 401
    headers: ClassVar[dict[str, str]] = {"www-authenticate": 'Bearer realm="modelyard"'}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. Times are seconds since 1970."""

    id: str
    subject: str
    role: Role
    models: tuple[str, ...]
    issued: int
    expires: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: what a good token gives its bearer."""

    subject: str
    role: Role
    models: tuple[str, ...]

    def require(self, roles: tuple[Role, ...], model: str | None = None) -> None:
        """Raises Refused unless the role is one of these and the model, if there is one, is among its own."""
        if self.role not in roles:
            raise Refused(
                f"the role of {self.subject!r} is {self.role}, and this needs {' or '.join(roles)}",
                remedy="ask an administrator for a token with that role",
            )
        if model is not None and not covers(self.models, model_of(model)):
            raise Refused(
                f"the token of {self.subject!r} is not good for {model!r}",
                remedy="ask an administrator for a token that names the model",
            )


def parse_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{text!r} can't be the name of a token", remedy="use letters, digits and . _ @ + -, 64 at most"
        )
    return text


def parse_duration(text: str) -> int:
    """Seconds in `30d`, `12h` or `15m`. Raises InvalidInput, also for more than ten years."""
    found = _DURATION.fullmatch(text.strip())
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_S:
        raise InvalidInput(f"{text!r} is no time from 1m to 3650d", remedy="write 30d, 12h or 15m")
    return seconds


def issue(claims: Claims, key: SigningKey) -> str:
    """The token."""
    payload = {
        "iss": OWN_ISSUER,
        "sub": claims.subject,
        "jti": claims.id,
        "role": claims.role,
        "models": list(claims.models),
        "iat": claims.issued,
        "exp": claims.expires,
    }
    token: str = _jwt().encode(payload, key.private, algorithm=ALGORITHM, headers={"kid": key.public.kid})
    return token


def bearer(header: str | None) -> str:
    """The token of an Authorization header. Raises Unauthorized."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("this needs a token", remedy=_REMEDY)
    return token.strip()


def verify(
    token: str, rules: Rules, *, issuers_key: KeyFinder | None = None, clock: Callable[[], float] = time.time
) -> Identity:
    """Who a token makes its bearer. Raises Unauthorized, which says what is wrong and never the token."""
    jwt = _jwt()
    try:
        header = jwt.get_unverified_header(token)
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        if rules.issuer and claimed == rules.issuer.issuer and issuers_key:
            payload = _checked(token, issuers_key(token), _ISSUERS_ALGORITHMS, clock, rules.issuer)
            return _issuers_identity(payload, rules.issuer)
        known = {key.kid: key for key in rules.keys}
        if claimed != OWN_ISSUER or header.get("kid") not in known:
            raise Unauthorized("the token is signed by nobody who is known here", remedy=_REMEDY)
        key = jwt.PyJWK(known[header["kid"]].jwk())
        payload = _checked(token, key, (ALGORITHM,), clock)
    except jwt.ExpiredSignatureError:
        raise Unauthorized("the token has expired", remedy=_REMEDY) from None
    except jwt.PyJWKClientConnectionError as error:
        raise Unavailable("the keys of the OIDC issuer can't be fetched", remedy="look whether it runs") from error
    except jwt.PyJWTError as error:
        raise Unauthorized(f"the token is not valid ({type(error).__name__})", remedy=_REMEDY) from None
    return _own_identity(payload, rules)


def _checked(
    token: str, key: Any, algorithms: tuple[str, ...], clock: Callable[[], float], issuer: Issuer | None = None
) -> dict[str, Any]:
    """The payload of a token with a good signature that has not expired."""
    jwt = _jwt()
    payload: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=list(algorithms),
        audience=list(issuer.audiences) if issuer else None,
        options={"require": ["exp"], "verify_exp": False, "verify_iat": False, "verify_aud": issuer is not None},
    )
    if not isinstance(payload["exp"], (int, float)) or payload["exp"] <= clock() - CLOCK_SKEW_S:
        raise jwt.ExpiredSignatureError
    return payload


def _own_identity(payload: Mapping[str, Any], rules: Rules) -> Identity:
    if payload.get("jti") in rules.revoked:
        raise Unauthorized("the token was revoked", remedy="ask an administrator for another one")
    role, models = payload.get("role"), payload.get("models")
    if role not in ROLES or not isinstance(models, list):
        raise Unauthorized("the token names no role or no models", remedy=_REMEDY)
    return Identity(str(payload.get("sub")), role, tuple(str(model) for model in models))


def _issuers_identity(payload: Mapping[str, Any], issuer: Issuer) -> Identity:
    has = texts(claim(payload, issuer.role_claim))
    given = [role for value, role in issuer.roles if value in has]
    if not given:
        raise Refused(
            f"{payload.get('sub')!r} has no role here: no value of its claim {issuer.role_claim!r} gives one",
            remedy="see access.oidc_roles",
        )
    models = EVERY_MODEL if issuer.models_claim is None else texts(claim(payload, issuer.models_claim))
    return Identity(str(payload.get("sub")), max(given, key=ROLES.index), models)


def claim(payload: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path such as `realm_access.roles`; None if there is none."""
    found: Any = payload
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def texts(value: Any) -> tuple[str, ...]:
    """A claim that is one text or a list of them."""
    if isinstance(value, str):
        return (value,)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _jwt() -> Any:
    try:
        import jwt
    except ImportError as error:
        raise MissingExtra("PyJWT", "access") from error
    return jwt
