"""Pickles are found whatever they are called and wherever they hide; nothing is taken for one that is none."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
import random
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch

from modelyard.importer.inspect import inspect
from modelyard.importer.inspect.opcodes import WINDOW

from . import builders
from .builders import hostile, npy, state, tarred, zipped


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def dumped(compress: Any) -> bytes:
    out = io.BytesIO()
    joblib.dump({"a": np.zeros(1000)}, out, compress=compress)
    return out.getvalue()


OBJECTS = np.array([{}], dtype=object)
TWO_PICKLES = pickle.dumps(1, 0) + hostile(0)
FOUND = {
    **{f"protocol-{n}.txt": hostile(n) for n in range(6)},
    **{f"data-{n}.txt": pickle.dumps({"a": [1, "two"]}, n) for n in range(6)},
    **{f"joblib-{name}": dumped((name, 3)) for name in ("zlib", "gzip", "bz2", "lzma", "xz")},
    "joblib-plain": dumped(0),
    "weights.safetensors": hostile(2),
    "model.gguf": hostile(4),
    "model.onnx": hostile(0),
    "README.md": hostile(0),
    "two.txt": TWO_PICKLES,
    "hyphens.txt": b"\x80\x02cmodules.my-model.code\nRun\n)\x81.",
    "state.bin": state(),
    "legacy.bin": state(_use_new_zipfile_serialization=False),
    "in.zip": zipped({"a.txt": b"hello", "b.txt": hostile()}),
    "in-in.zip": zipped({"a.zip": zipped({"b.zip": zipped({"c.txt": hostile(0)})})}, compression=zipfile.ZIP_DEFLATED),
    "behind.bin": b"\x7fELF" + zipped({"x": hostile()}),
    "in.tar": tarred({"a.txt": b"hello", "b.txt": hostile()}),
    "in.tar.gz": tarred({"a.txt": b"hello", "b.txt": hostile()}, "w:gz"),
    "in.tar.xz": tarred({"b.zip": zipped({"c": hostile()})}, "w:xz"),
    "name-is-code.tar": tarred({hostile(0).decode(): b"hello"}),
    "objects.npy": npy(OBJECTS, allow_pickle=True),
    "fields.npy": npy(np.zeros(2, [("a", "<f4"), ("b", "O")]), allow_pickle=True),
    "objects.npz": npz(a=np.zeros(2), b=OBJECTS),
    "doubly.gz": gzip.compress(bz2.compress(hostile())),
    "long-string.txt": b"(V" + b"x" * WINDOW + b"\n0" + hostile(0),
    "empty.pkl": b"",
    "odd.joblib": b"\x04\x22\x4d\x18 lz4 can't be looked into",
}


@pytest.mark.parametrize("name", FOUND)
def test_found(tmp_path: Path, name: str) -> None:
    found = inspect(builders.folder(tmp_path, {f"deep/{name}": FOUND[name], "other.txt": "hello"}))
    assert list(found.pickles) == [f"deep/{name}"]
    assert found.pickles[f"deep/{name}"]
    assert found.model.format == "pickle"


def test_reasons_say_where_the_pickle_lies(tmp_path: Path) -> None:
    builders.folder(tmp_path, {"a.zip": zipped({"b.zip": zipped({"c.txt": hostile(2)})})})
    assert inspect(tmp_path).pickles == {"a.zip": "pickle, protocol 2, in c.txt, in b.zip"}


def test_a_transformers_folder_with_pickled_weights_is_both(tmp_path: Path) -> None:
    config = json.dumps({"architectures": ["BertForMaskedLM"]})
    found = inspect(builders.folder(tmp_path, {"config.json": config, "pytorch_model.bin": state()}))
    assert list(found.pickles) == ["pytorch_model.bin"]
    assert (found.model.format, found.model.task) == ("transformers", "fill-mask")


NOT_PICKLES: dict[str, bytes | str] = {
    "LICENSE": "MIT License\n\nCopyright",
    "numbers.txt": "0.93\n1.5\n",
    "one.txt": "1.0",
    "words.txt": "cab\ncabin\ncable\ncat\ndog\n",
    "vocab.txt": "".join(f"{chr(97 + n % 26)}{n}\n" for n in range(20_000)),
    "config.ini": "(section)\nI=1\n",
    "one-line.js": "import" + "x" * (2 * WINDOW),
    "empty.txt": "",
    "empty.bin": b"",
    "raw.bin": struct.pack("<4f", 0.1, -2.5, 3e9, 1e-9) * 1000,
    "big.bin": b"X" + b"\xff" * (2 * WINDOW),
    "plain.npy": npy(np.zeros((2, 3))),
    "fields.npy": npy(np.zeros(2, [("Output", "<f4"), ("b", "|b1", (2,))])),
    "python2.npy": npy(np.zeros((2, 3))).replace(b"(2, 3), }  ", b"(2L, 3L), }"),
    "plain.npz": npz(a=np.zeros(2), b=np.array(["Oh"])),
    "plain.tar.gz": tarred({"a.txt": b"hello"}, "w:gz"),
    "plain.zip": zipped({"a.txt": b"hello", "b/c.txt": b"hello"}),
    "empty.zip": zipped({}),
    "x.txt": "x\x9c is how some sentences begin",
    "vocab.txt.gz": gzip.compress(b"one\ntwo\n"),
}


@pytest.mark.parametrize("name", NOT_PICKLES)
def test_not_taken_for_a_pickle(tmp_path: Path, name: str) -> None:
    assert inspect(builders.folder(tmp_path, {name: NOT_PICKLES[name]})).pickles == {}


def test_random_bytes_are_rarely_taken_for_a_pickle(tmp_path: Path) -> None:
    source = random.Random(7)
    builders.folder(tmp_path, {f"{n}.bin": source.randbytes(2000) for n in range(2000)})
    assert inspect(tmp_path).pickles == {}


def test_a_pickle_beside_torchscripts_own_is_found(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(torch.nn.Linear(2, 2))
        torch.jit.save(script, str(tmp_path / "model.pt"), _extra_files={"more.txt": hostile(2)})
    assert inspect(tmp_path).pickles == {"model.pt": "pickle, protocol 2, in model/extra/more.txt"}
