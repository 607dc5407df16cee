"""Raw inputs into requests, answers into tables; no model and no gateway."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.deployment.asking import Raw, Table, request_for, table_of
from modelyard.errors import EngineError, InvalidInput, ModelyardError, NotFound

PNG = b"\x89PNG\r\n\x1a\n and more"


def tensor(name: str, datatype: str = "BYTES", shape: tuple[int, ...] = (-1,)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def output(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def answer(*outputs: dict[str, Any]) -> dict[str, Any]:
    return {"model_name": "m", "outputs": list(outputs)}


def test_texts_and_text_files_are_rows(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("from a file\n")
    raw = Raw(("first", "second"), (tmp_path / "text.txt",))
    assert request_for(raw, [tensor("text")], "m") == {
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [3], "data": ["first", "second", "from a file\n"]},
        ]
    }


def test_a_query_goes_with_each_text() -> None:
    request = request_for(Raw(("a", "b"), query="q"), [tensor("query"), tensor("text")], "m")
    assert [(t["name"], t["data"]) for t in request["inputs"]] == [("query", ["q", "q"]), ("text", ["a", "b"])]


@pytest.mark.parametrize("data", [PNG, b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WEBPVP8 "])
def test_images_travel_as_base64(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "picture").write_bytes(data)
    request = request_for(Raw(files=(tmp_path / "picture",)), [tensor("image")], "m")
    assert request["inputs"][0]["parameters"] == {"content_type": "base64"}
    assert base64.b64decode(request["inputs"][0]["data"][0]) == data


@pytest.mark.parametrize(
    ("raw", "inputs", "error", "expected"),
    [
        (Raw(("a",)), [tensor("image")], InvalidInput, "m takes images, no text; give each image with --file"),
        (
            Raw(("a",)),
            [tensor("x", "FP32", (-1, 4))],
            InvalidInput,
            r"m takes no text and no image, but x FP32 \[-1, 4\]; use --json",
        ),
        (Raw(("a",)), [], InvalidInput, "m takes no text and no image, but what it does not say; use --json"),
        (
            Raw(("a",)),
            [tensor("text"), tensor("k", "INT64")],
            InvalidInput,
            "takes no text and no image, but text BYTES",
        ),
        (Raw(("a",)), [tensor("query"), tensor("text")], InvalidInput, "m compares texts with a query"),
        (Raw(("a",), query="q"), [tensor("text")], InvalidInput, r"m takes no query, but text BYTES \[-1\]"),
        (
            Raw(files=(Path("nothing.png"),)),
            [tensor("image")],
            NotFound,
            "there is no file nothing.png; check the path",
        ),
        (Raw(files=(Path("/"),)), [tensor("text")], InvalidInput, "/ can't be read: Is a directory"),
    ],
)
def test_what_does_not_fit_the_model_is_told(
    raw: Raw, inputs: list[dict[str, Any]], error: type[ModelyardError], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        request_for(raw, inputs, "m")


def test_files_of_another_kind_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe no image, no text")
    with pytest.raises(InvalidInput, match="file is not an image; give a JPEG"):
        request_for(Raw(files=(tmp_path / "file",)), [tensor("image")], "m")
    with pytest.raises(InvalidInput, match="file is not a text; give a file in UTF-8"):
        request_for(Raw(files=(tmp_path / "file",)), [tensor("text")], "m")


LABEL = output("label", "BYTES", [2], ["cat", "dog"])
SCORE = output("score", "FP32", [2], [0.75, 0.5])


def test_several_rows_give_a_line_each() -> None:
    found = table_of(answer(LABEL, SCORE, output("probabilities", "FP32", [2, 2], [0.75, 0.25, 0.5, 0.5])), ["a", "b"])
    assert found == Table(("INPUT", "LABEL", "SCORE"), [("a", "cat", "0.7500"), ("b", "dog", "0.5000")])


def test_one_row_shows_the_likeliest_labels() -> None:
    names = [f"label {index}" for index in range(8)]
    probabilities = output("probabilities", "FP32", [1, 8], [0.0, 0.5, 0.1, 0.05, 0.2, 0.0, 0.15, 0.0])
    one = (output("label", "BYTES", [1], ["label 1"]), output("score", "FP32", [1], [0.5]))
    found = table_of(answer(*one, probabilities), ["a"], names)
    assert found.header == ("LABEL", "SCORE")
    assert found.rows == [
        ("label 1", "0.5000"),
        ("label 4", "0.2000"),
        ("label 6", "0.1500"),
        ("label 2", "0.1000"),
        ("label 3", "0.0500"),
    ]


def test_ranked_texts_come_best_first() -> None:
    found = table_of(answer(output("score", "FP32", [3], [0.1, 0.9, 0.5])), ["a", "b", "c"])
    assert found.rows == [("b", "0.9000"), ("c", "0.5000"), ("a", "0.1000")]


def test_entities_have_a_line_each() -> None:
    anna = {"label": "PER", "score": 0.9, "start": 0, "end": 4, "text": "anna"}
    found = table_of(answer(output("entities", "BYTES", [2], [json.dumps([anna]), "[]"])), ["anna", "nobody"])
    assert found.rows == [("anna", "PER", "anna", 0, 4, "0.9000")]


@pytest.mark.parametrize(
    ("outputs", "names", "expected"),
    [
        (
            [output("embedding", "FP32", [1, 6], [0.5] * 6)],
            ["a"],
            ("a", "0.5000 0.5000 0.5000 0.5000 0.5000 … (6 numbers)"),
        ),
        ([output("length", "INT64", [1, 1], [4])], ["a"], ("a", "4")),
        ([output("total", "FP32", [3], [1.0, 2.0, 3.0])], ["a", "b"], ("a, b", "1.0000 2.0000 3.0000")),
    ],
)
def test_other_outputs_are_shown_as_they_are(outputs: list[dict[str, Any]], names: list[str], expected: Any) -> None:
    assert table_of(answer(*outputs), names).rows == [expected]


@pytest.mark.parametrize("body", [[], {"outputs": 3}, {"outputs": [{"name": "x"}]}])
def test_an_answer_of_another_shape_is_told(body: Any) -> None:
    with pytest.raises(EngineError, match="the answer holds no outputs; look at it with --raw"):
        table_of(body, ["a"])


def test_long_texts_are_shortened_in_the_table() -> None:
    assert Raw(("word " * 50,), (Path("a/b.png"),)).names == [f"{('word ' * 50)[:59]}…", "a/b.png"]
