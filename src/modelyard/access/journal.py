"""The journal of access: public keys, which tokens were made, which are revoked. Whoever can write it is administrator.

It holds no secret: neither a private key nor a token can be had from it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from modelyard.access.rules import CLOCK_SKEW_S, Issuer, PublicKey, Rules
from modelyard.access.tokens import Claims, issue, parse_name
from modelyard.errors import Conflict, IntegrityError, NotFound
from modelyard.settings import Role
from modelyard.store import Journal, Store
from modelyard.store.documents import RESTORE, problem

if TYPE_CHECKING:
    from modelyard.access.keys import KeySource

PREFIX = "access"
_KEPT_S = 30 * 86400  # an expired token stays in the list that long


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A public key, since when it counts and by whom."""

    x: str
    at: str
    by: str


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token that was made; not the token itself. `expires`: seconds since 1970; `key`: the id of what signed it."""

    name: str
    role: Role
    models: tuple[str, ...]
    key: str
    at: str
    by: str
    expires: int
    revoked_at: str | None = None
    revoked_by: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AccessState:
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    tokens: dict[str, TokenRecord] = field(default_factory=dict)


_state = TypeAdapter(AccessState)


class AccessJournal:
    """Access to one store's models. While it holds a public key, access is on."""

    def __init__(self, store: Store, keys: KeySource, *, user: str, clock: Callable[[], float] = time.time) -> None:
        self._journal = Journal(store, PREFIX)
        self._where = f"{PREFIX} in {store.url}"
        self._keys = keys
        self._user = user
        self._clock = clock

    def read(self) -> AccessState:
        entry = self._journal.read()
        return self._parse(entry.state if entry else {})

    def rules(self, *, issuer: Issuer | None = None, required: bool = False) -> Rules:
        """What a place that checks tokens must know now."""
        state = self.read()
        oldest = self._clock() - CLOCK_SKEW_S - 1
        revoked = (id_ for id_, token in state.tokens.items() if token.revoked_at and token.expires > oldest)
        keys = tuple(PublicKey(kid, key.x) for kid, key in sorted(state.keys.items()))
        return Rules(keys, tuple(sorted(revoked)), issuer, required)

    def init(self) -> PublicKey:
        """Turn access on: with this machine's signing key, which is made if there is none. Raises Conflict."""
        if self.read().keys:
            raise Conflict(
                "access is on already", remedy="see `modelyard token ls`; `modelyard token rotate` adds a signing key"
            )
        key = (self._keys.find() or self._keys.create()).public
        self._publish(key, f"access on, with {key.kid}")
        return key

    def rotate(self) -> PublicKey:
        """A new signing key on this machine. Tokens that others signed stay good until they expire.

        A key that this machine has and nobody knows yet, as after an interruption, is published as it is.
        """
        known, own = self.read().keys, self._keys.find()
        if not known:
            raise Conflict("access is off", remedy="turn it on with `modelyard token init`")
        fresh = own if own is not None and own.public.kid not in known else self._keys.replace()
        self._publish(fresh.public, f"a new key, {fresh.public.kid}")
        return fresh.public

    def create(self, name: str, role: Role, models: tuple[str, ...], lifetime_s: int) -> tuple[str, Claims]:
        """A new token, and what it says. Raises NotFound without a signing key, Conflict if that one doesn't count."""
        name, key = parse_name(name), self._keys.load()
        if key.public.kid not in self.read().keys:
            raise Conflict(
                f"the signing key of this machine, {key.public.kid}, does not count here",
                remedy="`modelyard token init` turns access on, `modelyard token rotate` adds the key",
            )
        now = int(self._clock())
        claims = Claims(uuid.uuid4().hex[:16], name, role, models, now, now + lifetime_s)
        token = issue(claims, key)
        record = TokenRecord(name, role, models, key.public.kid, self._now(), self._user, claims.expires)
        self._update(
            lambda state: replace(state, tokens=self._kept(state) | {claims.id: record}),
            why=f"token {claims.id} for {name}, {role}",
        )
        return token, claims

    def revoke(self, id_: str, *, reason: str = "") -> None:
        """A token, or a key and with it every token it signed. Raises NotFound, and Conflict for the last key."""
        self._update(lambda state: self._without(state, id_, reason), why=_why(f"revoked {id_}", reason))

    def off(self, *, reason: str = "") -> None:
        """No key counts any more, and no token is needed."""
        self._update(lambda state: replace(state, keys={}), why=_why("access off", reason))

    def _without(self, state: AccessState, id_: str, reason: str) -> AccessState:
        if id_ in state.keys:
            if len(state.keys) == 1:
                raise Conflict(
                    f"{id_} is the only key, without it everything would be open",
                    remedy="`modelyard token rotate` first, or `modelyard token off`",
                )
            return replace(state, keys={kid: key for kid, key in state.keys.items() if kid != id_})
        token = state.tokens.get(id_)
        if token is None:
            raise NotFound(f"there is no token or key {id_!r}", remedy="see `modelyard token ls`")
        if token.revoked_at:
            return state
        revoked = replace(token, revoked_at=self._now(), revoked_by=self._user, reason=reason)
        return replace(state, tokens=state.tokens | {id_: revoked})

    def _kept(self, state: AccessState) -> dict[str, TokenRecord]:
        oldest = self._clock() - _KEPT_S
        return {id_: token for id_, token in state.tokens.items() if token.expires > oldest}

    def _publish(self, key: PublicKey, why: str) -> None:
        record = KeyRecord(key.x, self._now(), self._user)
        self._update(lambda state: replace(state, keys=state.keys | {key.kid: record}), why=why)

    def _update(self, decide: Callable[[AccessState], AccessState], *, why: str) -> None:
        self._journal.update(lambda state: asdict(decide(self._parse(state))), by=self._user, why=why)

    def _parse(self, state: dict[str, Any]) -> AccessState:
        try:
            return _state.validate_python(state)
        except ValidationError as error:
            raise IntegrityError(f"{self._where} can't be understood: {problem(error)}", remedy=RESTORE) from error

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")


def _why(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what
