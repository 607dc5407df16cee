"""Raw inputs and a custom handler as a person uses them, with a real `modelyard up` beside: docs/runtimes.md."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelyard.serving import server
from modelyard.settings import ServingSettings
from ports import free_port

from .conftest import Cli, refused
from .test_live import up

MAKE = Path(__file__).parents[2] / "examples" / "handler" / "make.py"


@pytest.fixture
def digits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's folder, made in the current one."""
    monkeypatch.setattr(sys, "argv", ["make.py", "digits"])
    runpy.run_path(str(MAKE), run_name="__main__")
    return folder / "digits"


def test_texts_and_pictures_are_asked_about(
    cli: Cli, folder: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(C=100))
    (folder / "moods").mkdir()
    skops.io.dump(words.fit(["good", "bad", "very good"], ["fine", "sad", "fine"]), folder / "moods" / "model.skops")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "black.png")
    cli("init")
    assert cli("register", "moods", "moods:v1.0.0").code == 0
    registered = cli("register", "digits", "digits:v1.0.0", "--meta", "metadata.json")
    assert (registered.code, "note:" in registered.err) == (0, False), registered
    digest = cli("show", "digits:v1.0.0", "--json").json["digest"]
    monkeypatch.setenv("MODELYARD_SERVING__TRUST_CODE", f'["{digest}"]')

    with up(folder):
        for name in ("moods", "digits"):
            staged = cli("stage", f"{name}:v1.0.0")
            assert staged.code == 0, staged
            assert cli("validate", f"{name}:v1.0.0").code == 0
        one = cli("predict", "moods:staging", "--text", "how bad").out.splitlines()
        assert [line.split()[0] for line in one] == ["LABEL", "sad", "fine"]
        several = cli("predict", "moods:staging", "--text", "bad", "--text", "good").out.splitlines()
        assert [line.split()[:2] for line in several] == [["INPUT", "LABEL"], ["bad", "sad"], ["good", "fine"]]
        pictures = cli("predict", "digits:v1.0.0", "--file", "seven.png", "--file", "black.png").out.splitlines()
        assert pictures[1].split()[:2] == ["seven.png", "7"]
        assert cli("predict", "digits:staging", "--file", "seven.png", "--raw").json["outputs"][0]["data"] == [7]
        refused(cli("predict", "digits:staging", "--text", "seven"), "digits:staging takes images, no text")
        refused(cli("predict", "moods:staging", "--file", "seven.png"), "seven.png is not a text")
        refused(cli("predict", "digits:staging", "--file", "none.png"), "there is no file none.png; check the path")


def test_code_runs_only_where_it_is_trusted(cli: Cli, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("init")
    cli("register", "digits", "digits:v1.0.0", "--meta", "metadata.json")
    refused(
        cli("serve", "digits:v1.0.0", "--port", str(free_port())),
        "digits:v1.0.0 is served by Python code of its own (handler.py), which is not trusted",
        "or serve it with --trust-code",
    )
    served: list[ServingSettings] = []

    def run(*_: object, settings: ServingSettings, **__: object) -> int:
        served.append(settings)
        return 0

    monkeypatch.setattr(server, "run", run)
    assert cli("serve", "digits:v1.0.0", "--trust-code", "--port", str(free_port())).code == 0
    assert served[0].trust_code == (cli("show", "digits:v1.0.0", "--json").json["digest"],)
