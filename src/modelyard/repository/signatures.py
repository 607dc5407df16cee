"""Signatures of versions: kept as evidence of kind `signature`, one journal for each key, and required where settings
say so.

A signature says who vouches for a version's files. It counts while its key is trusted: a key that is no longer named
in the settings takes its signatures with it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from modelyard.errors import InvalidInput, Refused
from modelyard.repository import bundles
from modelyard.repository.bundles import Bundle
from modelyard.repository.evidence import Evidence, EvidenceJournal
from modelyard.repository.keys import Key, Trust, read_trust
from modelyard.repository.manifest import ModelVersion
from modelyard.store import Store

KIND = "signature"


class Signatures:
    """The signatures in a store. `trusted` are PEM files, `required` the environments that take nothing unsigned."""

    def __init__(
        self, store: Store, *, trusted: Sequence[Path] = (), required: Collection[str] = (), user: str = ""
    ) -> None:
        self._journal = EvidenceJournal(store, KIND)
        self._trusted = trusted
        self._required = frozenset(required)
        self._user = user

    def sign(
        self, version: ModelVersion, key: Key, *, certificate: Path | None = None, chain: Sequence[Path] = ()
    ) -> Bundle:
        """Sign a version and keep the signature. Raises InvalidInput."""
        bundle = bundles.make(version, key, certificate=certificate, chain=chain)
        self._keep(version, bundle)
        return bundle

    def attach(self, version: ModelVersion, text: str, *, where: str) -> Bundle:
        """Keep a bundle that was made elsewhere. Raises InvalidInput, and Refused when it would not count."""
        bundle = bundles.read(text, where=where)
        if problem := bundles.check(bundle, version, read_trust(self._trusted)):
            raise Refused(f"{where} does not count for {version.name}:{version.version}: {problem}", remedy=_SIGN)
        self._keep(version, bundle)
        return bundle

    def verify(self, version: ModelVersion) -> Bundle:
        """A signature that counts. Raises Refused, saying what is wrong with the one there is."""
        found = self._journal.newest(version.ref)
        problem = "it is signed, and no key is trusted here" if found else "it is not signed"
        if found and self._trusted:
            trust = read_trust(self._trusted)
            # The last word belongs to a signature of a trusted key, which should have counted.
            for _, evidence in sorted(found.items(), key=lambda each: each[0] in trust.keys):
                bundle, why = _check(evidence, version, trust)
                if bundle and why is None:
                    return bundle
                problem = why or problem
        raise Refused(f"{version.name}:{version.version} has no signature that counts: {problem}", remedy=_SIGN)

    def requires(self, environment: str | None) -> bool:
        """Whether an environment takes only what is signed; None, one that nobody knows, does if any does."""
        return bool(self._required) if environment is None else environment in self._required

    def require(self, version: ModelVersion, environment: str | None) -> None:
        """Raises Refused for a version that may not serve in an environment."""
        if self.requires(environment):
            self.verify(version)

    def _keep(self, version: ModelVersion, bundle: Bundle) -> None:
        check = {"name": "bundle", "passed": True, "detail": f"signed with a {bundle.method}", "bundle": bundle.text}
        evidence = Evidence(True, str(version.digest), "model-signing", {"method": bundle.method}, [check])
        self._journal.add(version.ref, bundle.key, evidence, by=self._user)


def _check(evidence: Evidence, version: ModelVersion, trust: Trust) -> tuple[Bundle | None, str | None]:
    """A bundle that was kept, and what is wrong with it."""
    text = next((str(check.get("bundle", "")) for check in evidence.checks), "")
    try:
        bundle = bundles.read(text, where="what is kept as its signature")
    except InvalidInput as error:
        return None, error.message
    return bundle, bundles.check(bundle, version, trust)


_SIGN = "sign it with `modelyard sign` and a key that security.trusted_keys names"
