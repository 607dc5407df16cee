"""Pickles that are mere data pass; everything else is refused with its own reason, however it is disguised."""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import re
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch._weights_only_unpickler import _get_allowed_globals

from modelyard.importer.inspect import allowlist, inspect, judge

from . import builders
from .builders import hostile, npy, state, tarred, zipped


def saved(value: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def network() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


WEIGHTS = {
    "a": torch.zeros(2, dtype=torch.bfloat16),
    "b": torch.nn.Parameter(torch.ones(2)),
    "c": [1, 2.5, None, torch.Size([1]), torch.float16, torch.device("cpu")],
}
ARRAYS = {
    "numbers": np.zeros((2, 3)),
    "scalar": np.float32(1),
    "texts": np.array(["x", "yy"]),
    "objects": np.array([{}, 1, "a"], dtype=object),
    "fortran": np.asfortranarray(np.ones((2, 2), ">i4")),
}
PLAIN = {"a": [1, "two", 3.0, None, True], "b": (b"bytes", bytearray(b"x")), "c": {1, 2}, "d": frozenset("x"), "e": 1j}
ALLOWED = {
    "state.bin": saved(network().state_dict()),
    "state-legacy.bin": saved(network().state_dict(), _use_new_zipfile_serialization=False),
    "weights.pt": saved(WEIGHTS),
    "weights-legacy.pth": saved(WEIGHTS, _use_new_zipfile_serialization=False),
    **{f"plain-{n}.pkl": pickle.dumps(PLAIN, n) for n in range(6)},
    **{f"arrays-{n}.pkl": pickle.dumps(ARRAYS, n) for n in range(6)},
    "plain.joblib": None,
    "objects.npy": npy(np.array([{"a": 1}, "b"], dtype=object), allow_pickle=True),
    "two.pkl": pickle.dumps(1, 0) + pickle.dumps({}, 2),
    "in.zip": zipped({"x.pt": state(), "y.pkl": pickle.dumps(PLAIN)}),
    "in.tar.gz": tarred({"a.txt": b"hello", "x.bin": state()}, "w:gz"),
}


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("joblib") / "x.joblib"
    joblib.dump(PLAIN, path, compress=3)
    return {name: data if data is not None else path.read_bytes() for name, data in ALLOWED.items()}


@pytest.mark.parametrize("name", ALLOWED)
def test_mere_data_passes(tmp_path: Path, allowed: dict[str, bytes], name: str) -> None:
    found = inspect(builders.folder(tmp_path, {name: allowed[name]}))
    assert (list(found.pickles), found.refused) == ([name], {})
    assert found.scanners == judge.scanners()
    assert "fickling" in found.scanners


def test_what_passes_is_what_torch_loads_with_weights_only(allowed: dict[str, bytes]) -> None:
    for name in ("state.bin", "state-legacy.bin", "weights.pt", "weights-legacy.pth"):
        assert torch.load(io.BytesIO(allowed[name]), weights_only=True)


def test_torchs_own_list_holds_ours() -> None:
    theirs = _get_allowed_globals()
    ours = {name for name in (*allowlist.CALLABLE, *allowlist.VALUES) if name.startswith(("torch", "coll", "builtins"))}
    ours.remove("builtins.frozenset")
    assert len(ours) > 40
    assert ours <= theirs.keys()


class Calling:
    """Unpickled, it would call whatever it is given."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def called(function: Any, *arguments: Any, protocol: int = 4) -> bytes:
    return pickle.dumps(Calling(function, *arguments), protocol)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def asked(module: str, name: str) -> bytes:
    """STACK_GLOBAL, called without arguments."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93)R."


def memoized() -> bytes:
    """os.system, its two names taken out of the memo in the other order than they came."""
    names = text("system") + b"\x94" + text("os") + b"\x94"
    return b"\x80\x04" + names + b"00h\x01h\x00\x93" + text("exit 1") + b"\x85R."


def nested_load() -> bytes:
    from torch.storage import _load_from_bytes

    return called(_load_from_bytes, hostile())


DTYPE = b"cnumpy\ndtype\n(VU2\nI00\nI01\ntR"
REFUSED = {
    "reduce": (hostile(), "asks for posix.system"),
    "protocol 0": (hostile(0), "asks for posix.system"),
    "getattr": (called(getattr, "a", "upper"), "asks for builtins.getattr"),
    "attrgetter": (asked("operator", "attrgetter"), "asks for operator.attrgetter"),
    "partial": (asked("functools", "partial"), "asks for functools.partial"),
    "eval": (called(eval, "1"), "asks for builtins.eval"),
    "nothing but named": (b"\x80\x04" + text("os") + text("system") + b"\x93.", "asks for os.system"),
    "dotted name": (asked("collections", "OrderedDict.__class__"), "asks for collections.OrderedDict.__class__"),
    "dotted by the module": (asked("collections.abc", "sys.modules"), "asks for collections.abc.sys.modules"),
    "through an allowed module": (asked("torch", "os.system"), "asks for torch.os.system"),
    "another split": (asked("torch._utils._rebuild_tensor_v2.x", "y"), "asks for torch._utils"),
    "memoized names": (memoized(), "asks for os.system"),
    "names made up": (b"\x80\x04]" + text("x") + b"\x93.", "makes up the name"),
    "extension": (b"\x80\x02\x82\x01.", "the opcode EXT1"),
    "extension 4": (b"\x80\x02\x84\x01\x00\x00\x00.", "the opcode EXT4"),
    "inst": (b"(S'exit 1'\nios\nsystem\n.", "the opcode INST"),
    "obj": (b"(cos\nsystem\nS'exit 1'\no.", "asks for os.system"),
    "obj of an allowed type": (b"\x80\x02(ccollections\nOrderedDict\no.", "the opcode OBJ"),
    "newobj": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "the opcode NEWOBJ"),
    "persistent id": (b"\x80\x02X\x01\x00\x00\x00xQ.", "no tensor's storage"),
    "persistent id as text": (b"Px\n0I1\n.", "the opcode PERSID"),
    "class changed": (b"\x80\x02ccollections\nOrderedDict\n}b.", "changes a global"),
    "second state": (b"\x80\x02ccollections\nOrderedDict\n)R}b}b.", "changes collections.OrderedDict"),
    "state that is no dict": (b"\x80\x02ccollections\nOrderedDict\n)R(}}tb.", "changes collections.OrderedDict"),
    "added to what is no list": (b"\x80\x02ccollections\nOrderedDict\n)RK\x01a.", "adds to a object"),
    "calls what it made": (b"\x80\x02ccollections\nOrderedDict\n)R)R.", "calls what it has made itself"),
    "calls a mere value": (b"\x80\x02ctorch\nFloatStorage\n(K\x01tR.", "calls torch.FloatStorage"),
    "pickle in a pickle": (nested_load(), "asks for torch.storage._load_from_bytes"),
    "bytes without end": (called(bytearray, 1 << 40), "calls builtins.bytearray in a way"),
    "an odd encoding": (
        b"\x80\x02c_codecs\nencode\n(X\x01\0\0\0xX\x03\0\0\0zipt\x52.",
        "calls _codecs.encode in a way",
    ),
    "array of any size": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'b'\ntR.",
        "calls numpy.core.multiarray._reconstruct in a way",
    ),
    "array of another type": (
        b"cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n(I0\ntS'b'\ntR.",
        "calls numpy.core.multiarray._reconstruct in a way",
    ),
    "dtype with fields": (pickle.dumps(np.zeros(1, [("a", "O")])), "in a way that weights don't need"),
    "dtype with forged flags": (DTYPE + b"(I3\nS'<'\nNNNI8\nI4\nI63\ntb.", "changes numpy.dtype"),
    "numbers as nobody writes them": (DTYPE + b"(I3\nS'<'\nNNNI010\nI4\nI0\ntb.", "writes numbers as nobody does"),
    "names with escapes": (b"\x80\x04V\\u006fs\nVsystem\n\x93.", "asks for .system"),
    "shared dtype": (b"cnumpy\ndtype\n(VO8\ntR.", "calls numpy.dtype in a way"),
    "a whole model": (saved(network()), "asks for torch.nn.modules.container.Sequential"),
    "a whole model, legacy": (saved(network(), _use_new_zipfile_serialization=False), "torch.nn.modules.container"),
    "a scikit-learn model": (pickle.dumps(LinearRegression()), "asks for sklearn.linear_model._base.LinearRegression"),
    "second pickle": (pickle.dumps(1, 0) + hostile(0), "bytes follow it.*posix.system"),
    "after white space": (pickle.dumps(1, 2) + b"  \n" + hostile(2), "bytes follow it"),
    "junk behind": (pickle.dumps({"a": 1}, 2) + b"\xff" * 10, "bytes follow it"),
    "protocol in the middle": (b"\x80\x02K\x01\x80\x04" + text("x") + b"\x86.", "the opcode PROTO"),
    "cut": (pickle.dumps({"a": [1, 2, "x" * 100]}, 4)[:-20], "can't be followed to its end"),
    "memo of nothing": (b"\x80\x02h\x07.", "make no sense"),
    "a value of gigabytes": (b"\x80\x04}}}" + b"\x8e" + struct.pack("<Q", 1 << 40) + b"x" * 100, "holds a value of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    data, why = REFUSED[case]
    found = inspect(builders.folder(tmp_path, {"pytorch_model.bin": b"", "x.pkl": data})).refused
    assert list(found) == ["x.pkl"]
    assert re.search(why, found["x.pkl"]), found["x.pkl"]


def torch_zip(pickled: bytes, **more: bytes) -> bytes:
    return zipped({"a/data.pkl": pickled, "a/version": b"3\n", "a/data/0": b"\0" * 8} | more)


CONTAINERS = {
    "renamed.txt": hostile(),
    "weights.safetensors": hostile(),
    "hostile.bin": torch_zip(hostile(2)),
    "not-a-pickle.bin": torch_zip(b"\x89 what is this"),
    "beside.bin": torch_zip(pickle.dumps({}, 2), **{"a/extra.txt": hostile(0)}),
    "outside.bin": torch_zip(pickle.dumps({}, 2), **{"b/data/0": hostile(0)}),
    "other-case.bin": torch_zip(pickle.dumps({}, 2), **{"a/DATA/0": hostile(0)}),
    "in-in.zip": zipped({"a.zip": zipped({"b.pt": torch_zip(hostile(2))})}, compression=zipfile.ZIP_DEFLATED),
    "late.zip": zipped({"a.pkl": pickle.dumps(1), "b.pkl": pickle.dumps(2), "c.txt": hostile(0)}),
    "in.tar.xz": tarred({"ok.pkl": pickle.dumps(1), "b.zip": zipped({"c": hostile()})}, "w:xz"),
    "doubly.gz": gzip.compress(gzip.compress(hostile())),
    "objects.npy": npy(np.array([Calling(print, "x")], dtype=object), allow_pickle=True),
    "pickle-then-zip.bin": pickle.dumps(1, 2) + torch_zip(pickle.dumps({}, 2)),
    "hostile-then-zip.bin": hostile(2) + torch_zip(pickle.dumps({}, 2)),
    "hexadecimal.bin": b"I0x10\n0" + hostile(0),
    "octal.bin": b"I0007\n0" + hostile(0),
    "long.bin": b"L0x10L\n0" + hostile(0),
    "not-ascii.bin": b"S'\xc3\xa9'\n0" + hostile(0),
    "spaces.bin": b"I 1 \n0" + hostile(0),
    "header.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{" + b" " * (300 << 10),
    "odd.joblib": b"\x04\x22\x4d\x18 lz4 can't be looked into",
    "empty.pkl": b"",
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_refused_wherever_it_lies(tmp_path: Path, name: str) -> None:
    found = inspect(builders.folder(tmp_path, {"ok.bin": state(), name: CONTAINERS[name]}))
    assert list(found.refused) == [name]
    assert set(found.pickles) == {"ok.bin", name}


def test_a_models_old_tar_format_is_not_understood(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        data = pickle.dumps(1, 2) + b"\1\2\3"
        info = tarfile.TarInfo("storages")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    assert list(inspect(builders.folder(tmp_path, {"model.pth": out.getvalue()})).refused) == ["model.pth"]


@pytest.mark.parametrize("name", ["hexadecimal.bin", "long.bin"])
def test_arguments_that_only_pickletools_finds_wrong_do_run(name: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(pickletools.genops(CONTAINERS[name]))
    with pytest.raises(SystemExit):
        pickle.loads(CONTAINERS[name].replace(b"posix\nsystem", b"builtins\nexit"))


def test_policies(tmp_path: Path) -> None:
    builders.folder(tmp_path, {"bad.pkl": hostile(), "ok.bin": state()})
    assert set(inspect(tmp_path, policy="none").refused) == {"bad.pkl", "ok.bin"}
    assert set(inspect(tmp_path, policy="allow-listed").refused) == {"bad.pkl"}
    found = inspect(tmp_path, policy="any")
    assert (found.refused, set(found.pickles)) == ({}, {"bad.pkl", "ok.bin"})


def test_fickling_can_refuse_what_the_list_would_take() -> None:
    data = pickle.dumps({"a": 1}, 2)
    assert judge._second_opinion(bytearray(data)) is None
    assert "fickling says" in str(judge._second_opinion(bytearray(hostile(2))))
    assert "fickling" in str(judge._second_opinion(bytearray(b"\x80\x02\xff")))
