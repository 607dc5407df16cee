"""Queries with the documents that answer them, read from a file or a folder.

A file holds a JSON object a line: `{"query": "…", "positives": ["…"], "negatives": ["…"]}`; every text of a positive or
negative is a document, for all queries. A folder is laid out as BEIR's: `corpus.jsonl` (`_id`, `title`, `text`),
`queries.jsonl` (`_id`, `text`) and `qrels/test.tsv` (query, document, gain, under a header). N. Thakur
et al.: BEIR, NeurIPS Datasets and Benchmarks, 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelyard.errors import InvalidInput, NotFound
from modelyard.store.documents import problem

_LAYOUT = "see the page on embeddings for what a data set looks like"


@dataclass(frozen=True, slots=True)
class Dataset:
    """`relevant`: for each query its documents' numbers and gains, one above 0 at least."""

    documents: tuple[str, ...]
    queries: tuple[str, ...]
    relevant: tuple[dict[int, float], ...]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    query: str
    positives: Annotated[list[str], Field(min_length=1)]
    negatives: list[str] = []


class _Text(BaseModel):
    id: str = Field(alias="_id")
    title: str = ""
    text: str


_Row = TypeVar("_Row", bound=BaseModel)


def read_dataset(path: Path) -> Dataset:
    """Raises NotFound, and InvalidInput that names the file and line that can't be read."""
    if not path.exists():
        raise NotFound(f"there is no data set {path}", remedy="check the path")
    found = _folder(path) if path.is_dir() else _file(path)
    if not found.queries:
        raise InvalidInput(f"{path} has no query with a relevant document", remedy=_LAYOUT)
    return found


def _file(path: Path) -> Dataset:
    lines = list(_rows(path, _Line))
    texts = (text for line in lines for text in (*line.positives, *line.negatives))
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    relevant = tuple({numbers[text]: 1.0 for text in line.positives} for line in lines)
    return Dataset(tuple(numbers), tuple(line.query for line in lines), relevant)


def _folder(path: Path) -> Dataset:
    documents = {row.id: f"{row.title} {row.text}".strip() for row in _rows(path / "corpus.jsonl", _Text)}
    numbers = {name: number for number, name in enumerate(documents)}
    queries = {row.id: row.text for row in _rows(path / "queries.jsonl", _Text)}
    judged: dict[str, dict[int, float]] = {}
    for query, document, gain in _judgements(path / "qrels" / "test.tsv"):
        if query in queries and document in numbers and gain > 0:
            judged.setdefault(query, {})[numbers[document]] = gain
    return Dataset(tuple(documents.values()), tuple(queries[name] for name in judged), tuple(judged.values()))


def _judgements(path: Path) -> Iterator[tuple[str, str, float]]:
    for number, line in enumerate(_lines(path), start=1):
        if number == 1 or not line.strip():  # the header
            continue
        try:
            query, document, gain = line.rstrip("\r\n").split("\t")
            if not math.isfinite(float(gain)):
                raise ValueError(gain)
        except ValueError:
            raise InvalidInput(
                f"{path}:{number} is not a query, a document and a gain, parted by tabs", remedy=_LAYOUT
            ) from None
        yield query, document, float(gain)


def _rows(path: Path, kind: type[_Row]) -> Iterator[_Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            raise InvalidInput(f"{path}:{number} can't be read: {problem(error)}", remedy=_LAYOUT) from error


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from file
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}", remedy=_LAYOUT) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text", remedy=_LAYOUT) from error
