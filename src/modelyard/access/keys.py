"""Signing keys: Ed25519, in PEM, from the environment or from a file that only its owner can read.

The private half leaves this module in one way alone: into that file.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.access.rules import PublicKey
from modelyard.errors import AlreadyExists, InvalidInput, MissingExtra, NotFound

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_MADE = "make one with `modelyard token init`, or `openssl genpkey -algorithm ed25519`"


@dataclass(frozen=True, slots=True)
class SigningKey:
    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> SigningKey:
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise MissingExtra("cryptography", "access") from error
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, pem: str, *, origin: str) -> SigningKey:
        """Raises InvalidInput, which names the origin and never the content."""
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives.serialization import load_pem_private_key
        except ImportError as error:
            raise MissingExtra("cryptography", "access") from error
        try:
            private = load_pem_private_key(pem.replace("\\n", "\n").encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise InvalidInput(f"{origin} holds no Ed25519 private key in PEM without a password", remedy=_MADE)
        return cls(private)

    @property
    def public(self) -> PublicKey:
        """The key's id is the beginning of its digest, so every machine gives it the same."""
        raw = self.private.public_key().public_bytes_raw()
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        return PublicKey(f"key-{hashlib.sha256(raw).hexdigest()[:12]}", x)

    def pem(self) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where this machine's signing key is: in a variable (`pem`), which is never written, or in a file."""

    file: Path
    pem: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return "MODELYARD_ACCESS__SIGNING_KEY" if self.pem is not None else str(self.file)

    def find(self) -> SigningKey | None:
        """Raises InvalidInput for what is no key, or can't be read."""
        if self.pem is not None:
            return SigningKey.parse(self.pem, origin=self.name)
        try:
            return SigningKey.parse(self.file.read_text(), origin=self.name)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise InvalidInput(f"the signing key {self.file} can't be read: {reason}", remedy="mend it") from error

    def load(self) -> SigningKey:
        """Raises NotFound when there is none."""
        key = self.find()
        if key is None:
            raise NotFound(
                f"this machine has no signing key: there is no {self.file}",
                remedy="run `modelyard token init`, or set access.signing_key_file or MODELYARD_ACCESS__SIGNING_KEY",
            )
        return key

    def create(self) -> SigningKey:
        """A new key in the file, which must not be there. Raises AlreadyExists, InvalidInput."""
        key = SigningKey.generate()
        self._write(key, os.O_EXCL)
        return key

    def replace(self) -> SigningKey:
        """A new key in the file's place. Raises InvalidInput when the key comes from a variable."""
        key = SigningKey.generate()
        beside = KeySource(self.file.with_name(f".{self.file.name}.new"))
        if self.pem is not None:
            raise InvalidInput(f"{self.name} can't be changed from here", remedy="set it to the new key first")
        beside._write(key, os.O_TRUNC)
        beside.file.replace(self.file)
        return key

    def _write(self, key: SigningKey, flag: int) -> None:
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | flag, 0o600)
        except FileExistsError as error:
            raise AlreadyExists(f"there is a signing key already: {self.file}", remedy="use it") from error
        except OSError as error:
            raise InvalidInput(
                f"the signing key can't be written to {self.file}: {error.strerror}",
                remedy="set access.signing_key_file",
            ) from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.pem())
