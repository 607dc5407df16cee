"""Data sets for retrieval: a file of lines, or a folder laid out as BEIR's."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.embeddings.dataset import Dataset, read_dataset
from modelyard.errors import InvalidInput, NotFound


def test_a_file_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"query": "q1", "positives": ["a", "b"], "negatives": ["c"]}\n\n{"query": "q2", "positives": ["c"]}\n',
        encoding="utf-8",
    )
    assert read_dataset(path) == Dataset(("a", "b", "c"), ("q1", "q2"), ({0: 1.0, 1: 1.0}, {2: 1.0}))


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir()
    (folder / "corpus.jsonl").write_text(
        '{"_id": "d1", "title": "One", "text": "first"}\n{"_id": "d2", "text": "zweiter ß", "metadata": {}}\n',
        encoding="utf-8",
    )
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "who"}\n{"_id": "q2", "text": "what"}\n')
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td2\t2\r\nq1\td1\t0\nq9\td1\t1\nq2\td9\t1\n"
    )
    return folder


def test_a_folder_as_beirs(tmp_path: Path) -> None:
    assert read_dataset(beir(tmp_path)) == Dataset(("One first", "zweiter ß"), ("who",), ({1: 2.0},))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no query with a relevant document"),
        ("not json\n", "pairs.jsonl:1 can't be read: Invalid JSON"),
        ('{"query": "q", "positives": []}', ":1 can't be read: positives: it must hold at least 1"),
        ('{"query": "q", "positives": ["a"]}\n{"question": "q"}', ":2 can't be read: query: it is missing"),
        ('{"query": "q", "positives": ["a"], "positive": 1}', ":1 can't be read: positive: it is not known here"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="see the page on embeddings") as caught:
        read_dataset(path)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1 d1 1\n", "test.tsv:2 is not a query, a document and a gain"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\tinf\n", "test.tsv:2 is not a query"),
        ("corpus.jsonl", '{"id": "d1"}\n', "corpus.jsonl:1 can't be read: _id: it is missing"),
    ],
)
def test_a_folders_broken_file_is_named(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (beir(tmp_path) / name).write_text(text)
    with pytest.raises(InvalidInput, match=reason):
        read_dataset(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no data set"):
        read_dataset(tmp_path / "nothing")
    with pytest.raises(InvalidInput, match=r"corpus\.jsonl can't be read: No such file"):
        read_dataset(tmp_path)
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="is not UTF-8 text"):
        read_dataset(tmp_path / "bytes.jsonl")
