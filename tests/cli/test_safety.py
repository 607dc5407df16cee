"""Scanning and signing from the command line."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

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
