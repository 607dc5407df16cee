"""Scanning and signing from the command line."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modelyard.refs import ModelRef
from modelyard.repository import EvidenceJournal
from modelyard.store import LocalDisk

from .conftest import Cli, refused


def weights() -> bytes:
    out = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, out)
    return out.getvalue()


def test_scanning_a_folder(cli: Cli, folder: Path) -> None:
    (folder / "m").mkdir()
    (folder / "m" / "pytorch_model.bin").write_bytes(weights())
    (folder / "m" / "modeling.py").write_text("import os")
    found = cli("scan", "m")
    assert found.code == 0
    assert "ok      pytorch_model.bin  a pickle (pickle, protocol 2, in archive/data.pkl)" in found.out
    assert "note    modeling.py" in found.out
    (folder / "m" / "bad.pkl").write_bytes(pickle.dumps(print))
    refused(cli("scan", "m"), "bad.pkl holds a pickle", "it asks for builtins.print", "convert it to safetensors")
    found = cli("scan", "m", "--json")
    assert (found.code, found.json["passed"], list(found.json["refused"])) == (1, False, ["bad.pkl"])


def test_scanning_a_version_leaves_evidence(yard: Cli, folder: Path) -> None:
    found = yard("scan", "good:v1.0.0")
    assert (found.code, found.out) == (0, "nothing was found that could run code\npickles: allow-listed\n")
    (entry,) = EvidenceJournal(LocalDisk(folder / ".modelyard"), "scan").newest(ModelRef.parse("good:v1.0.0")).values()
    assert (entry.passed, entry.by) == (True, "tester")


def test_the_policy_is_a_setting(yard: Cli, folder: Path) -> None:
    (folder / "w.bin").write_bytes(weights())
    assert yard("register", "w.bin", "w:v1.0.0").code == 0
    (folder / "modelyard.toml").write_text('[scan]\npickles = "none"\n')
    refused(yard("scan", "w.bin"), "pickles are not taken here")
    refused(yard("register", "w.bin", "w:v1.1.0", "--trust-pickle", "ours"), "w.bin holds a pickle")
    refused(yard("scan", "w:v1.0.0"), "pickles are not taken here")
    (folder / "modelyard.toml").write_text('[scan]\npickles = "any"\n')
    (folder / "bad.pkl").write_bytes(pickle.dumps(print))
    assert yard("register", "bad.pkl", "bad:v1.0.0").code == 0


def test_scanning_what_is_not_there(yard: Cli) -> None:
    refused(yard("scan", "nothing"), "there is no model 'nothing'")


def test_signing_and_what_follows_from_it(
    yard: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, make_key: Callable[..., object]
) -> None:
    make_key(folder, "mine", password="open sesame")
    (folder / "modelyard.toml").write_text(
        '[security]\ntrusted_keys = ["mine.pub"]\nrequire_signature = ["production"]\n[deployment]\ntarget = "none"\n'
    )
    refused(yard("verify", "good:v1.0.0", "--signature"), "good:v1.0.0 has no signature that counts: it is not signed")
    refused(yard("promote", "good:v1.0.0", "--force", "--reason", "now"), "it is not signed; sign it with")
    refused(yard("serve", "good:v1.0.0"), "it is not signed")
    refused(yard("sign", "good:v1.0.0", "--key", "mine.pem"), "can't open the key mine.pem", "set its password")
    monkeypatch.setenv("MODELYARD_KEY_PASSWORD", "open sesame")
    assert "signed good:v1.0.0@sha256:" in yard("sign", "good:v1.0.0", "--key", "mine.pem").out
    checked = yard("verify", "good:v1.0.0", "--signature")
    assert (checked.code, "is as registered" in checked.out, "signed (key " in checked.err) == (0, True, True)
    assert yard("promote", "good:v1.0.0", "--force", "--reason", "now").code == 0


def test_what_can_not_be_signed_with(yard: Cli, folder: Path) -> None:
    (folder / "x.sig").write_text("{}")
    refused(yard("sign", "good:v1.0.0"), "nothing to sign with")
    refused(yard("sign", "good:v1.0.0", "--bundle", "x.sig"), "x.sig is no signature bundle")
    refused(yard("sign", "good:v1.0.0", "--bundle", "x.sig", "--key", "y"), "--bundle is a signature already")
    refused(yard("sign", "good:v1.0.0", "--bundle", "none"), "none can't be read")
    refused(yard("sign", "good:v1.0.0", "--key", "none"), "none can't be read")
    refused(yard("verify", "--signature"), "--signature is about one version")
