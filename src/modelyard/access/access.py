"""Access as the settings of one machine have it: its signing key, its issuer, and what may listen where."""

from __future__ import annotations

import hashlib
import ipaddress
from functools import cached_property
from pathlib import Path

from modelyard.access.journal import AccessJournal
from modelyard.access.keys import KeySource
from modelyard.access.rules import Fresh, Issuer, Rules
from modelyard.errors import Refused
from modelyard.settings import Settings
from modelyard.store import Store


class Access:
    """Who may ask for what is in one store."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    @cached_property
    def journal(self) -> AccessJournal:
        """Public keys, tokens, and what is revoked."""
        return AccessJournal(self._store, self.keys, user=self._settings.user)

    @property
    def keys(self) -> KeySource:
        """Where this machine's signing key for the store is: never in the store."""
        given = self._settings.access
        name = f"{hashlib.sha256(self._store.url.encode()).hexdigest()[:12]}.pem"
        file = given.signing_key_file or Path.home() / ".config" / "modelyard" / "keys" / name
        pem = given.signing_key.get_secret_value() if given.signing_key else None
        return KeySource(file.expanduser().absolute(), pem)

    @property
    def issuer(self) -> Issuer | None:
        """The OpenID Connect issuer whose tokens are taken, too."""
        given = self._settings.access
        if not given.oidc_issuer or not given.oidc_jwks_uri:
            return None
        import certifi

        ca_file = (given.oidc_ca_file or Path(certifi.where())).expanduser().absolute()
        roles = tuple(sorted(given.oidc_roles.items()))
        claims = (given.oidc_role_claim, given.oidc_models_claim)
        return Issuer(given.oidc_issuer, given.oidc_audience, given.oidc_jwks_uri, roles, *claims, str(ca_file))

    def rules(self, host: str) -> Fresh[Rules]:
        """What holds for what listens on `host`, as of a moment ago. Nothing that others can reach is open."""
        issuer, required = self.issuer, self._required(host)
        return Fresh(lambda: self.journal.rules(issuer=issuer, required=required))

    def require(self, section: str, host: str) -> None:
        """Raises Refused when what listens there would be reached by others and no token could be good."""
        if self._required(host) and self.rules(host)().shut:
            raise Refused(
                f"{section}.host is {host}, and without tokens anybody who reaches it could use it",
                remedy="turn access on with `modelyard token init`, or set access.open = true if something before it "
                "checks who asks",
            )

    def _required(self, host: str) -> bool:
        return not (self._settings.access.open or is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
