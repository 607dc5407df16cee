"""What a place that checks tokens must know: public keys, revoked tokens, the issuer whose tokens count too. Values.

Nothing here is secret.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from modelyard.errors import ModelyardError
from modelyard.settings import Role

OWN_ISSUER = "modelyard"
ALGORITHM = "EdDSA"
CLOCK_SKEW_S = 5  # how far machines' clocks may differ
_MAX_AGE_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key; `x` is its 32 bytes in base64url, as a JWK holds them."""

    kid: str
    x: str

    def jwk(self) -> dict[str, str]:
        return {"kty": "OKP", "crv": "Ed25519", "alg": ALGORITHM, "use": "sig", "kid": self.kid, "x": self.x}


@dataclass(frozen=True, slots=True)
class Issuer:
    """An OpenID Connect issuer. `roles` says which role a value of the role claim gives, the strongest one counts."""

    issuer: str
    audiences: tuple[str, ...]
    jwks_uri: str
    roles: tuple[tuple[str, Role], ...]
    role_claim: str = "roles"
    models_claim: str | None = None  # None: every model
    ca_file: str | None = None

    def values(self, roles: tuple[Role, ...]) -> tuple[str, ...]:
        """The values of the role claim that give one of these roles."""
        return tuple(value for value, role in self.roles if role in roles)


@dataclass(frozen=True, slots=True)
class Rules:
    """`required`: a token is needed even if there is no way to have one, so that nothing stands open by accident."""

    keys: tuple[PublicKey, ...] = ()
    revoked: tuple[str, ...] = ()
    issuer: Issuer | None = None
    required: bool = False

    @property
    def on(self) -> bool:
        return bool(self.keys or self.issuer or self.required)

    @property
    def shut(self) -> bool:
        """A token is needed, and none can be good."""
        return self.required and not self.keys and self.issuer is None


class Fresh(Generic[T]):
    """A value that is read anew when it is older than `max_age_s`; while it can't be read, the last one stays."""

    def __init__(
        self, read: Callable[[], T], *, max_age_s: float = _MAX_AGE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._value: tuple[T, float] | None = None

    def __call__(self) -> T:
        """Raises what `read` raises as long as it has never succeeded."""
        with self._lock:
            if self._value is None or self._clock() - self._value[1] >= self._max_age_s:
                try:
                    value = self._read()
                except ModelyardError:
                    if self._value is None:
                        raise
                    value = self._value[0]
                self._value = (value, self._clock())
            return self._value[0]
