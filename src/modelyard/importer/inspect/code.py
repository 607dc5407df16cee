"""Code that a model brings along without a pickle: Python files, templates, layers that hold bytecode.

What runs by itself when the model is loaded is refused; what runs only when somebody asks for it is noted.
"""

from __future__ import annotations

import re
import zipfile

from modelyard.errors import InvalidInput
from modelyard.importer.inspect.folder import Folder
from modelyard.store.files import File

_LAMBDA = re.compile(rb'"class_name"\s*:\s*"(?:[\w.]+>)?Lambda"')
_KERAS = (".keras", ".h5", ".hdf5")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PIECE = 4 << 20
_OVERLAP = 256
_TEMPLATE = "a chat template (Jinja), which the engine renders with each request"
_CONFIG_LIMIT = 64 << 20


def refused(folder: Folder) -> dict[str, str]:
    """Path → what it holds, for files whose code runs when they are loaded."""
    paths = (path for path in folder.named(*_KERAS) if _has_lambda(folder.files[path]))
    return dict.fromkeys(paths, "a Keras Lambda layer (Python bytecode)")


def note(folder: Folder) -> None:
    """Adds remarks to the folder's notes."""
    for path in folder.named(".py"):
        folder.notes.setdefault(path, "Python code, which runs only for callers that pass trust_remote_code")
    for path in folder.named(".jinja"):
        folder.notes[path] = _TEMPLATE
    if folder.object("tokenizer_config.json").get("chat_template"):
        folder.notes["tokenizer_config.json"] = f"holds {_TEMPLATE}"
    if folder.object("config.json").get("auto_map"):
        folder.notes["config.json"] = "names classes of its own (auto_map), which need trust_remote_code"


def _has_lambda(file: File) -> bool:
    with file.open() as stream:
        head = stream.read(8)
        stream.seek(0)
        if head.startswith(b"PK"):
            return _in_zip(file)
        if head != _HDF5:
            return False
        tail = b""
        while piece := stream.read(_PIECE):
            if _LAMBDA.search(tail + piece):
                return True
            tail = piece[-_OVERLAP:]
    return False


def _in_zip(file: File) -> bool:
    """A .keras file: its config.json names the layers. Damaged zips were refused before."""
    with file.open() as stream, zipfile.ZipFile(stream) as archive:
        if "config.json" not in archive.namelist():
            return False
        with archive.open("config.json") as config:
            data = config.read(_CONFIG_LIMIT + 1)
    if len(data) > _CONFIG_LIMIT:
        raise InvalidInput(f"{file.path} has a configuration of more than {_CONFIG_LIMIT >> 20} MB", remedy="remove it")
    return _LAMBDA.search(data) is not None
