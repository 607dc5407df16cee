"""Raw inputs to a deployed model: texts and files into a request that fits its signature, the answer into a table.

Knows the names that raw inputs have (engines/samples.py) and the outputs of the model server's runtimes; any other
output is shown as it is. Pure, but for reading files.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.engines.samples import IMAGE
from modelyard.errors import EngineError, InvalidInput, NotFound

_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_SHOWN = 5
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Raw:
    """What a person gives: texts, files, and what the texts are to be compared with."""

    texts: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    query: str | None = None

    @property
    def names(self) -> list[str]:
        """How each row is called in the table."""
        return [*(_short(text) for text in self.texts), *(str(path) for path in self.files)]

    def read_texts(self) -> list[str]:
        """The texts, then those in the files. Raises NotFound and InvalidInput."""
        return [*self.texts, *(_text(path) for path in self.files)]


Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Table:
    header: tuple[str, ...]
    rows: list[Row]


def request_for(raw: Raw, inputs: Sequence[dict[str, Any]], model: str) -> dict[str, Any]:
    """A request with a row for each text and file. Raises NotFound for a file, InvalidInput for what does not fit."""
    names = {tensor["name"] for tensor in inputs if tensor["datatype"] == "BYTES" and len(tensor["shape"]) == 1}
    takes = ", ".join(f"{tensor['name']} {tensor['datatype']} {tensor['shape']}" for tensor in inputs)
    if len(names) == len(inputs) and names == {IMAGE}:
        if raw.texts or raw.query is not None:
            raise InvalidInput(f"{model} takes images, no text", remedy="give each image with --file")
        return _request({IMAGE: [_image(path) for path in raw.files]}, {"content_type": "base64"})
    if len(names) != len(inputs) or names not in ({"text"}, {"text", "query"}):
        raise InvalidInput(
            f"{model} takes no text and no image, but {takes or 'what it does not say'}", remedy="use --json"
        )
    if ("query" in names) != (raw.query is not None):
        if raw.query is not None:
            raise InvalidInput(f"{model} takes no query, but {takes}", remedy="leave --query out")
        raise InvalidInput(f"{model} compares texts with a query", remedy="give it with --query")
    texts = raw.read_texts()
    return _request({"text": texts} if raw.query is None else {"query": [raw.query] * len(texts), "text": texts})


def table_of(answer: Any, names: Sequence[str], labels: Sequence[str] = ()) -> Table:
    """An inference answer for people. `labels`: what the probabilities are those of, where the model says so."""
    outputs = {name: _rows(tensor) for name, tensor in _outputs(answer).items()}
    if any(len(rows) != len(names) for rows in outputs.values()):
        outputs = {name: [rows] for name, rows in outputs.items()}
        names = [", ".join(names)]
    if "entities" in outputs:
        return _entities(outputs["entities"], names)
    probabilities = outputs.pop("probabilities", None)
    if len(names) == 1 and probabilities and len(labels) == len(probabilities[0]):
        best = sorted(zip(probabilities[0], labels, strict=True), reverse=True)[:_SHOWN]
        return Table(("LABEL", "SCORE"), [(label, _number(score)) for score, label in best])
    header = ("INPUT", *(name.upper() for name in outputs))
    rows = [(name, *map(_cell, values)) for name, *values in zip(names, *outputs.values(), strict=True)]
    if list(outputs) == ["score"]:
        order = sorted(range(len(rows)), key=lambda row: -float(outputs["score"][row]))
        rows = [rows[row] for row in order]
    return Table(header, rows)


def _entities(found: Sequence[str], names: Sequence[str]) -> Table:
    header = ("INPUT", "LABEL", "TEXT", "START", "END", "SCORE")
    return Table(
        header,
        [
            (name, e["label"], e["text"], e["start"], e["end"], _number(e["score"]))
            for name, entities in zip(names, found, strict=True)
            for e in json.loads(entities)
        ],
    )


def _request(inputs: dict[str, list[str]], parameters: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data}
            | ({"parameters": parameters} if parameters else {})
            for name, data in inputs.items()
        ]
    }


def _outputs(answer: Any) -> dict[str, dict[str, Any]]:
    match answer:
        case {"outputs": [*tensors]} if all(isinstance(t, dict) and t.keys() >= _NEEDED for t in tensors):
            return {str(tensor["name"]): tensor for tensor in tensors}
    raise EngineError("the answer holds no outputs", remedy="look at it with --raw")


_NEEDED = {"name", "shape", "data"}


def _rows(tensor: dict[str, Any]) -> list[Any]:
    """The values of each row, of which the protocol puts all in one list."""
    shape, data = tensor["shape"], tensor["data"]
    if len(shape) <= 1:
        return list(data)
    width = len(data) // shape[0] if shape[0] else 0
    return [data[start : start + width] for start in range(0, len(data), width)] if width else []


def _cell(value: Any) -> str:
    if isinstance(value, list):
        shown = " ".join(_number(item) for item in value[:_SHOWN])
        return shown if len(value) <= _SHOWN else f"{shown} … ({len(value)} numbers)"
    return _number(value)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _image(path: Path) -> str:
    data = _read(path)
    if not data.startswith(_IMAGES) and not (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        raise InvalidInput(f"{path} is not an image", remedy="give a JPEG, PNG, WebP, GIF, BMP or TIFF file")
    return base64.b64encode(data).decode()


def _text(path: Path) -> str:
    try:
        text = _read(path).decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not a text", remedy="give a file in UTF-8") from None
    if not text:
        raise InvalidInput(f"{path} is empty", remedy="leave it out")
    return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", remedy="check the path") from None
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}", remedy="give a file") from error


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
