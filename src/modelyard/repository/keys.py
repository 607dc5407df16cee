"""Keys and certificates: the one to sign with, and those whose signatures count. Knows PEM files, nothing of models."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count: fingerprint → file of a public key, and files with authorities' certificates."""

    keys: dict[str, Path]
    authorities: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """A private key that was read from a file."""

    path: Path
    private: EllipticCurvePrivateKey

    @classmethod
    def read(cls, path: Path, *, password: str | None = None) -> Key:
        """Raises InvalidInput for what is no PEM file with a private key on a NIST curve, and for a wrong password."""
        serialization, ec = _cryptography()
        data = _read(path)
        try:
            found = serialization.load_pem_private_key(data, password.encode() if password else None)
        except TypeError as error:  # a password that lacks, or is too much
            raise InvalidInput(f"can't open the key {path}: {error}", remedy="set its password") from error
        except ValueError as error:
            why = "the password is wrong, or it is no private key in PEM"
            raise InvalidInput(f"can't open the key {path}: {why}", remedy="check both") from error
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name not in _CURVES:
            raise InvalidInput(f"the key {path} is not on one of the curves {', '.join(_CURVES)}", remedy=_GENERATE)
        return cls(path, found)

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """A path to read the key from once, without its password; it is a pipe, so the key lies on no disk."""
        serialization, _ = _cryptography()
        pem = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        reader, writer = os.pipe()
        try:
            os.write(writer, pem)  # far less than a pipe holds
            os.close(writer)
            yield Path(f"/dev/fd/{reader}")
        finally:
            os.close(reader)


def read_trust(paths: Sequence[Path]) -> Trust:
    """The trusted keys and authorities of the settings. Raises InvalidInput for a file that holds neither."""
    serialization, ec = _cryptography()
    from cryptography.x509 import load_pem_x509_certificates

    keys: dict[str, Path] = {}
    authorities: list[Path] = []
    for path in (path.expanduser() for path in paths):
        data = _read(path)
        try:
            if b"BEGIN CERTIFICATE" in data:
                load_pem_x509_certificates(data)
                authorities.append(path)
                continue
            key = serialization.load_pem_public_key(data)
        except ValueError as error:
            raise InvalidInput(f"{path} holds no public key or certificate in PEM", remedy=_TRUSTED) from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
            raise InvalidInput(f"the key {path} is not on one of the curves {', '.join(_CURVES)}", remedy=_GENERATE)
        keys[_fingerprint(key)] = path
    return Trust(keys, tuple(authorities))


def fingerprint_of_certificate(der: bytes, *, where: str) -> str:
    """That of the certificate's public key. Raises InvalidInput."""
    from cryptography.x509 import load_der_x509_certificate

    try:
        return _fingerprint(load_der_x509_certificate(der).public_key())
    except ValueError as error:
        raise InvalidInput(f"{where} holds a certificate that can't be read", remedy="sign again") from error


def _fingerprint(public: Any) -> str:
    """SHA-256 of the key in PEM, which is how model-signing names it in a bundle."""
    serialization, _ = _cryptography()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingExtra("cryptography", "security") from error
    return serialization, ec


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}", remedy="check the path") from error


_GENERATE = "make one with `openssl ecparam -name prime256v1 -genkey -noout -out key.pem`"
_TRUSTED = "name PEM files in the setting security.trusted_keys"
