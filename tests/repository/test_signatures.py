"""Signatures: what the real model_signing makes is taken, what is made here it takes, and nothing else counts."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.errors import InvalidInput, Refused
from modelyard.repository import EvidenceJournal, ModelRepository, ModelVersion
from modelyard.repository.keys import Key, read_trust
from modelyard.repository.signatures import Signatures
from modelyard.store import Memory, Store

from . import pki

MakeKey = Callable[..., pki.PrivateKey]
FILES = {"weights.bin": "weights", "sub/config.json": "{}", ".gitattributes": "*.bin filter=lfs"}


class Bench:
    """A store with two versions of a model, keys beside it, and who is trusted."""

    def __init__(self, repository: ModelRepository, folder: Path, make_key: MakeKey) -> None:
        self.make_key = partial(make_key, folder)
        self.repository, self.folder, self.model = repository, folder, folder / "model"
        for name, text in FILES.items():
            (self.model / name).parent.mkdir(parents=True, exist_ok=True)
            (self.model / name).write_text(text)
        self.version = repository.register_model("m", "v1.0.0", self.model)
        (self.model / "weights.bin").write_text("other weights")
        self.other = repository.register_model("m", "v1.1.0", self.model)
        (self.model / "weights.bin").write_text(FILES["weights.bin"])
        self.make_key("mine")
        self.make_key("theirs")

    def key(self, name: str) -> Key:
        return Key.read(self.folder / f"{name}.pem")

    def trusting(self, *names: str, required: tuple[str, ...] = ()) -> Signatures:
        paths = [self.folder / name for name in names]
        return Signatures(self.repository.storage, trusted=paths, required=required, user="tester")

    def model_signing(self, *arguments: str, code: int = 0) -> str:
        """The real command, on the model's folder."""
        command = [sys.executable, "-m", "model_signing", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done
        return done.stdout + done.stderr

    def bundle(self, version: ModelVersion | None = None) -> dict[str, Any]:
        (evidence,) = (
            EvidenceJournal(self.repository.storage, "signature").newest((version or self.version).ref).values()
        )
        found: dict[str, Any] = json.loads(evidence.checks[0]["bundle"])
        return found


@pytest.fixture
def bench(open_repository: Callable[..., ModelRepository], tmp_path: Path, make_key: MakeKey) -> Bench:
    return Bench(open_repository(Memory()), tmp_path, make_key)


def test_what_is_signed_here_the_real_command_verifies(bench: Bench) -> None:
    made = bench.trusting().sign(bench.version, bench.key("mine"))
    assert bench.trusting("mine.pub").verify(bench.version) == made
    (bench.folder / "m.sig").write_text(made.text)
    pulled = bench.repository.pull(bench.version, bench.folder / "pulled")
    public = ["--signature", str(bench.folder / "m.sig"), "--public_key", str(bench.folder / "mine.pub")]
    assert "succeeded" in bench.model_signing("verify", "key", str(pulled), *public)
    (pulled / "weights.bin").write_text("other weights")
    assert "Hash mismatch" in bench.model_signing("verify", "key", str(pulled), *public, code=1)


def test_what_the_real_command_signed_is_taken(bench: Bench) -> None:
    path = bench.folder / "theirs.sig"
    private = ["--private_key", str(bench.folder / "theirs.pem")]
    bench.model_signing("sign", "key", str(bench.model), "--signature", str(path), *private)
    signatures = bench.trusting("theirs.pub")
    signatures.attach(bench.version, path.read_text(), where="theirs.sig")
    assert signatures.verify(bench.version).text == path.read_text()
    with pytest.raises(Refused, match=r"theirs\.sig does not count for m:v1\.1\.0: it signs other files"):
        signatures.attach(bench.other, path.read_text(), where="theirs.sig")
    with pytest.raises(Refused, match="not among the trusted ones"):
        bench.trusting("mine.pub").attach(bench.version, path.read_text(), where="theirs.sig")


def test_a_signature_that_lies_in_the_folder_signs_all_but_itself(bench: Bench) -> None:
    private = ["--private_key", str(bench.folder / "mine.pem")]
    path = bench.model / "model.sig"
    bench.model_signing("sign", "key", str(bench.model), "--signature", str(path), *private)
    version = bench.repository.register_model("m", "v1.2.0", bench.model)
    bench.trusting("mine.pub").attach(version, path.read_text(), where="model.sig")


def test_no_byte_of_the_model_is_read(bench: Bench, requests: list[tuple[str, str]]) -> None:
    bench.trusting().sign(bench.version, bench.key("mine"))
    bench.trusting("mine.pub").verify(bench.version)
    assert not [key for _, key in requests if key.startswith("models/")]


def test_it_is_evidence_under_the_keys_fingerprint(
    store: Store, open_repository: Callable[..., ModelRepository], tmp_path: Path, make_key: MakeKey
) -> None:
    bench = Bench(open_repository(store), tmp_path, make_key)
    bench.trusting().sign(bench.version, bench.key("mine"))
    bench.trusting().sign(bench.version, bench.key("theirs"))
    newest = EvidenceJournal(store, "signature").newest(bench.version.ref)
    assert set(newest) == set(read_trust([tmp_path / "mine.pub", tmp_path / "theirs.pub"]).keys)
    assert all(each.passed and each.digest == str(bench.version.digest) for each in newest.values())
    assert bench.trusting("theirs.pub").verify(bench.version).key in newest


def test_nothing_and_nobody(bench: Bench) -> None:
    with pytest.raises(Refused, match=r"m:v1\.0\.0 has no signature that counts: it is not signed; sign it with"):
        bench.trusting("mine.pub").verify(bench.version)
    bench.trusting().sign(bench.version, bench.key("mine"))
    with pytest.raises(Refused, match="it is signed, and no key is trusted here"):
        bench.trusting().verify(bench.version)
    with pytest.raises(Refused, match=r"made with the key [0-9a-f]{12}, which is not among the trusted ones"):
        bench.trusting("theirs.pub").verify(bench.version)


def keep(bench: Bench, bundle: dict[str, Any] | str, version: ModelVersion) -> None:
    """Write a bundle into the journal, as somebody with access to the bucket could."""
    journal = EvidenceJournal(bench.repository.storage, "signature")
    ((key, evidence),) = journal.newest(bench.version.ref).items()
    evidence.checks[0]["bundle"] = bundle if isinstance(bundle, str) else json.dumps(bundle)
    journal.add(version.ref, key, evidence, by="intruder")


def changed(bundle: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).decode()
    assert old in payload
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(old, new).encode()).decode()
    return bundle


def test_a_bundle_of_another_model(bench: Bench) -> None:
    bench.trusting().sign(bench.version, bench.key("mine"))
    keep(bench, bench.bundle(), bench.other)
    with pytest.raises(Refused, match="it signs other files than this version has"):
        bench.trusting("mine.pub").verify(bench.other)


def test_a_bundle_that_was_changed(bench: Bench) -> None:
    bench.trusting().sign(bench.version, bench.key("mine"))
    digests = [next(f.sha256 for f in v.files if f.path == "weights.bin") for v in (bench.version, bench.other)]
    keep(bench, changed(bench.bundle(), *digests), bench.other)
    with pytest.raises(Refused, match="does not match what it signs: it was changed afterwards"):
        bench.trusting("mine.pub").verify(bench.other)


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"verificationMaterial": {}, "dsseEnvelope": 1}'])
def test_what_is_no_bundle(bench: Bench, text: str) -> None:
    bench.trusting().sign(bench.version, bench.key("mine"))
    keep(bench, text, bench.version)
    with pytest.raises(Refused, match="what is kept as its signature is no signature bundle"):
        bench.trusting("mine.pub").verify(bench.version)
    with pytest.raises(InvalidInput, match=r"x\.sig is no signature bundle"):
        bench.trusting("mine.pub").attach(bench.version, text, where="x.sig")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"method": "files"', '"method": "shards"', "does not sign whole files by SHA-256"),
        ('"hash_type": "sha256"', '"hash_type": "blake3"', "does not sign whole files by SHA-256"),
        ("signature/v1.0", "signature/v9.0", "does not sign whole files"),
    ],
)
def test_other_ways_of_signing(bench: Bench, old: str, new: str, why: str) -> None:
    bench.trusting().sign(bench.version, bench.key("mine"))
    with pytest.raises(InvalidInput, match=why):
        bench.trusting("mine.pub").attach(bench.version, json.dumps(changed(bench.bundle(), old, new)), where="x")


def test_the_newest_of_a_key_counts(bench: Bench) -> None:
    bench.trusting().sign(bench.version, bench.key("mine"))
    good = bench.bundle()
    keep(bench, "{}", bench.version)
    with pytest.raises(Refused):
        bench.trusting("mine.pub").verify(bench.version)
    keep(bench, good, bench.version)
    bench.trusting("mine.pub").verify(bench.version)


def test_where_it_is_required(bench: Bench) -> None:
    signatures = bench.trusting("mine.pub", required=("production",))
    signatures.require(bench.version, "staging")
    for environment in ("production", None):
        with pytest.raises(Refused, match="it is not signed"):
            signatures.require(bench.version, environment)
    signatures.sign(bench.version, bench.key("mine"))
    signatures.require(bench.version, "production")
    bench.trusting().require(bench.other, None)


def test_keys(bench: Bench) -> None:
    bench.make_key("locked", password="open sesame")
    bench.make_key("odd", curve=ec.SECP256K1())
    locked = bench.folder / "locked.pem"
    assert bench.trusting().sign(bench.version, Key.read(locked, password="open sesame")).method == "key"
    for path, password, why in (
        (locked, None, "set its password"),
        (locked, "wrong", "the password is wrong"),
        (bench.folder / "mine.pem", "needless", "password"),
        (bench.folder / "mine.pub", None, "no private key"),
        (bench.folder / "odd.pem", None, "not on one of the curves"),
        (bench.folder / "none.pem", None, "can't be read"),
    ):
        with pytest.raises(InvalidInput, match=why):
            Key.read(path, password=password)
    for name, why in (("odd.pub", "curves"), ("mine.pem", "no public key"), ("none", "can't be read")):
        with pytest.raises(InvalidInput, match=why):
            read_trust([bench.folder / name])


@pytest.fixture
def authority(bench: Bench) -> tuple[str, pki.PrivateKey]:
    """`authority.crt`, trusted in these tests."""
    made = bench.make_key("authority")
    pki.certificate(bench.folder / "authority.crt", made, "authority")
    return "authority", made


def test_a_certificate(bench: Bench, authority: tuple[str, pki.PrivateKey]) -> None:
    mine = bench.folder / "mine.crt"
    pki.certificate(mine, bench.key("mine").private, "ada", by=authority)
    made = bench.trusting().sign(bench.version, bench.key("mine"), certificate=mine, chain=[])
    assert bench.trusting("authority.crt").verify(bench.version).method == "certificate"
    (bench.folder / "m.sig").write_text(made.text)
    options = ["--signature", str(bench.folder / "m.sig"), "--certificate_chain", str(bench.folder / "authority.crt")]
    assert "succeeded" in bench.model_signing("verify", "certificate", str(bench.model), *options)
    pki.certificate(bench.folder / "authority.crt", bench.key("theirs").private, "authority")
    with pytest.raises(Refused, match="its certificate was issued by nobody trusted"):
        bench.trusting("authority.crt").verify(bench.version)
    with pytest.raises(Refused, match="no authority is among the trusted"):
        bench.trusting("mine.pub").verify(bench.version)


def test_certificates_that_do_not_fit(bench: Bench, authority: tuple[str, pki.PrivateKey]) -> None:
    mine, key = bench.folder / "mine.crt", bench.key("mine")
    for days in ((-3, -1), (1, 3)):
        pki.certificate(mine, key.private, "ada", by=authority, days=days)
        with pytest.raises(InvalidInput, match=r"can't sign with .*CN=ada is only valid from"):
            bench.trusting().sign(bench.version, key, certificate=mine)
    pki.certificate(mine, bench.key("theirs").private, "ada", by=authority)
    with pytest.raises(InvalidInput, match="does not match"):
        bench.trusting().sign(bench.version, key, certificate=mine)
    assert EvidenceJournal(bench.repository.storage, "signature").newest(bench.version.ref) == {}


def test_a_certificate_that_has_ended_since(
    bench: Bench, authority: tuple[str, pki.PrivateKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = bench.folder / "mine.crt"
    pki.certificate(mine, bench.key("mine").private, "ada", by=authority, days=(-3, -1))
    with monkeypatch.context() as then:
        then.setattr("modelyard.repository.bundles._ended", lambda certificates: None)
        bench.trusting().sign(bench.version, bench.key("mine"), certificate=mine)
    with pytest.raises(Refused, match="the certificate of CN=ada is only valid from"):
        bench.trusting("authority.crt").verify(bench.version)


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")  # in model-signing
def test_a_certificate_that_is_not_for_signing(bench: Bench, authority: tuple[str, pki.PrivateKey]) -> None:
    mine = bench.folder / "mine.crt"
    pki.certificate(mine, bench.key("mine").private, "ada", by=authority, signs=False)
    bench.trusting().sign(bench.version, bench.key("mine"), certificate=mine)
    with pytest.raises(Refused, match="cannot be used for signing"):
        bench.trusting("authority.crt").verify(bench.version)
