"""Certificates for tests, made as an administrator would make them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey


def certificate(
    path: Path,
    of: PrivateKey,
    name: str,
    *,
    by: tuple[str, PrivateKey] | None = None,
    days: tuple[float, float] = (-1, 1),
    signs: bool = True,
) -> None:
    """A certificate in a file, by an authority or by itself; `days` from now it begins and ends."""
    issuer, signer = by or (name, of)
    now = datetime.now(UTC)
    never = ("content_commitment", "key_encipherment", "data_encipherment", "crl_sign")
    usage = x509.KeyUsage(
        **dict.fromkeys(never, False),
        digital_signature=signs,
        key_agreement=not signs,
        key_cert_sign=by is None,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(of.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(signer, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
