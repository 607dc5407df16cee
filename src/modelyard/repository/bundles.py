"""Signature bundles, made and checked by OpenSSF's model-signing out of the digests that a version has anyway.

A bundle holds the list of files and digests that was signed, and is what the `model_signing` command writes and reads.
Files are hashed neither here nor there. Knows keys and bundles; nothing of where they are kept and what is required.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.keys import Key, Trust, fingerprint_of_certificate
from modelyard.repository.manifest import Artifact, ModelVersion

# What the model_signing command leaves out by itself: no engine reads these.
_GIT = (".git", ".gitattributes", ".github", ".gitignore")
_PREDICATE = "https://model_signing/signature/v1.0"
_LARGEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as it was written. `key` is the fingerprint of the public key it names, `certificates` the chain it
    brings along (DER), the signer's first; both unproven until `check` has found nothing."""

    text: str
    key: str
    certificates: tuple[bytes, ...] = ()

    @property
    def method(self) -> str:
        return "certificate" if self.certificates else "key"


class _Digests:
    """Stands where model-signing would hash a folder, and gives it the digests of the manifest."""

    def __init__(self, version: ModelVersion, ignored: Iterable[str]) -> None:
        self._version = version
        self._ignored = set(ignored)
        self.asked = False

    def add_ignored_paths(self, *, model_path: Any, paths: Iterable[Any]) -> None:  # noqa: ARG002 - model-signing's
        self._ignored |= {str(path) for path in paths}

    def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Any:  # noqa: ARG002 - model-signing's
        from model_signing import manifest
        from model_signing._hashing.hashing import Digest

        self.asked = True
        kind = manifest.SerializationType.from_args(
            {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": sorted(self._ignored)}
        )
        items = [
            manifest.FileManifestItem(path=PurePosixPath(f.path), digest=Digest("sha256", bytes.fromhex(f.sha256)))
            for f in self._version.files
            if not _left_out(f, self._ignored)
        ]
        return manifest.Manifest(f"{self._version.name}-{self._version.version}", items, kind)


def make(version: ModelVersion, key: Key, *, certificate: Path | None = None, chain: Sequence[Path] = ()) -> Bundle:
    """Sign a version's list of files. Raises InvalidInput when the certificate is not that of the key, or has ended."""
    signing = _library("signing")
    config = signing.Config().set_hashing_config(_Digests(version, _GIT))
    with TemporaryDirectory() as folder, key.opened() as path:
        written = Path(folder) / "bundle"
        try:
            if certificate is None:
                config.use_elliptic_key_signer(private_key=path)
            else:
                # An empty chain is none to model-signing; the certificate once more changes nothing.
                config.use_certificate_signer(
                    private_key=path, signing_certificate=certificate, certificate_chain=list(chain) or [certificate]
                )
            config.sign(Path(version.name), written)
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"can't sign with {certificate or key.path}: {error}", remedy="check the files"
            ) from error
        bundle = read(written.read_text(), where="the bundle")
    if ended := _ended(bundle.certificates):
        raise InvalidInput(f"can't sign with {certificate}: {ended}", remedy="get a new certificate")
    return bundle


def read(text: str, *, where: str) -> Bundle:
    """Raises InvalidInput for what is no bundle over whole files with SHA-256, signed with a key or a certificate."""
    try:
        found: Any = json.loads(text) if len(text) <= _LARGEST else {}
        material, payload = found["verificationMaterial"], found["dsseEnvelope"]["payload"]
        statement = json.loads(base64.b64decode(payload))
        how = statement["predicate"].get("serialization", {})
        chain = material.get("x509CertificateChain", {}).get("certificates", [])
        certificates = tuple(base64.b64decode(each["rawBytes"]) for each in chain)
        hint = material.get("publicKey", {}).get("hint")
        kind = statement["predicateType"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InvalidInput(f"{where} is no signature bundle of a model", remedy=_MAKE) from None
    if kind != _PREDICATE or (how.get("method"), how.get("hash_type")) != ("files", "sha256"):
        raise InvalidInput(f"{where} does not sign whole files by SHA-256", remedy="sign without options for hashing")
    if certificates:
        return Bundle(text, fingerprint_of_certificate(certificates[0], where=where), certificates)
    if not isinstance(hint, str) or not hint:
        raise InvalidInput(f"{where} does not say which key or certificate it was signed with", remedy=_MAKE)
    return Bundle(text, hint)


def check(bundle: Bundle, version: ModelVersion, trust: Trust) -> str | None:
    """Why a bundle does not count for a version; None if it does."""
    verifying = _library("verifying")
    config, digests = verifying.Config(), _Digests(version, ())
    if bundle.method == "key":
        if bundle.key not in trust.keys:
            return f"it was made with the key {bundle.key[:12]}, which is not among the trusted ones"
        config.use_elliptic_key_verifier(public_key=trust.keys[bundle.key])
    else:
        if not trust.authorities:
            return "it was made with a certificate, and no authority is among the trusted ones"
        if ended := _ended(bundle.certificates):
            return ended
        config.use_certificate_verifier(certificate_chain=trust.authorities)
    config.set_hashing_config(digests)
    return _verify(config, bundle, digests)


def _verify(config: Any, bundle: Bundle, digests: _Digests) -> str | None:
    """model-signing checks the signature first and asks for the digests only then."""
    from cryptography.exceptions import InvalidSignature
    from OpenSSL.crypto import X509StoreContextError

    with TemporaryDirectory() as folder:
        written = Path(folder) / "bundle"
        written.write_text(bundle.text)
        try:
            config.verify(Path(folder), written)
        except X509StoreContextError as error:
            return f"its certificate was issued by nobody trusted ({error})"
        except InvalidSignature:
            return "its signature does not match what it signs: it was changed afterwards"
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            if not digests.asked:
                return f"it can't be verified ({' '.join(str(error).split())})"
            return "it signs other files than this version has"
    return None


def _ended(certificates: Iterable[bytes]) -> str | None:
    """model-signing looks at the moment a certificate began. When a bundle was made nobody can tell: now counts."""
    from cryptography.x509 import load_der_x509_certificate

    now = datetime.now(UTC)
    for each in map(load_der_x509_certificate, certificates):
        if not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
            begins, ends = each.not_valid_before_utc, each.not_valid_after_utc
            name = each.subject.rfc4514_string()
            return f"the certificate of {name} is only valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}"
    return None


def _left_out(file: Artifact, ignored: set[str]) -> bool:
    """Git's own files and the signature itself, where the signer said so; of anything else all must be signed."""
    top = file.path.partition("/")[0]
    return top in ignored and (top in _GIT or (top == file.path and top.endswith(".sig")))


def _library(name: str) -> Any:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise MissingExtra("model-signing", "security") from error
    logging.getLogger("model_signing").setLevel(logging.ERROR)  # what matters it raises
    return {"signing": signing, "verifying": verifying}[name]


_MAKE = "make it with `modelyard sign`, or with model_signing 1.1 or later"
