from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.deployment import read_suite
from modelyard.errors import InvalidInput, ModelyardError, NotFound

DIGEST = "sha256:" + "0" * 64
METRIC = f"""
metric:
  dataset: digits.npz
  digest: {DIGEST}
  input: {{name: x, array: x}}
  output: {{name: y, array: y}}
  threshold: 0.9
"""

BAD: dict[str, tuple[str, ...]] = {
    "name: [": ("can't be read as YAML", "line 1"),
    "": ("the file", "an object"),
    "- 1": ("the file", "an object"),
    "speed: 3": ("speed", "not known here"),
    "name: Upper Case": ("name", "pattern"),
    "golden: [{request: {input: a}}]": ("golden.0.expect", "is missing"),
    "golden: [{request: {foo: 1}, expect: {}}]": ("golden.0.request", "one of messages, prompt, input, inputs"),
    "golden: [{request: {day: 2026-01-01}, expect: {}}]": ("golden.0.request.day", "JSON"),
    "golden: [{request: {x: .nan}, expect: {}}]": ("golden.0.request.x", "finite"),
    "name: a\nname: b": ("'name' is given 2 times",),
    "latency: {p95_ms: 0}": ("latency.p95_ms", "must be above 0;"),
    "latency: {p95_ms: .inf}": ("latency.p95_ms", "finite"),
    "latency: {requests: 5}": ("latency: p50_ms, p95_ms, p99_ms or requests_per_s is needed",),
    "latency: {p50_ms: 5, requests: 5, duration_s: 5}": ("latency: give requests or duration_s",),
    "latency: [{p50_ms: 5}, {p50_ms: 0}]": ("latency.1.p50_ms", "must be above 0;"),
    "resources: {memory: much}": ("resources.memory", "byte"),
    "licenses: mit": ("licenses", "must be a list"),
    METRIC.replace(DIGEST, "abc"): ("metric.digest", "pattern"),
    METRIC + "  name: f1": ("metric.name", "accuracy"),
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_suite_is_one_line_with_file_and_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read_suite(path)
    _one_line(caught.value, str(path), *BAD[text])


def test_a_suite_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        read_suite(tmp_path / "suite.yaml")
    _one_line(caught.value, str(tmp_path / "suite.yaml"))
    with pytest.raises(InvalidInput, match="can't be read"):
        read_suite(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="can't be read"):
        read_suite(tmp_path / "binary")


def test_the_digest_says_what_is_asked_not_how_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    texts = [
        METRIC + 'name: digits\ngolden: [{request: {inputs: [1], id: "7"}, expect: {a: 1}}]',
        'golden:\n- expect: {"a": 1}\n  request:\n    id: "7" # a comment\n    inputs:\n    - 1\nname: digits' + METRIC,
        METRIC.replace("digits.npz", "elsewhere/other.npz")
        + 'name: digits\ngolden: [{request: {inputs: [1], id: "7"}, expect: {a: 1}, tolerance: 0.000001}]',
    ]
    digests = set()
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        digests.add(read_suite(path).digest)
    assert len(digests) == 1
    path.write_text(texts[0].replace("threshold: 0.9", "threshold: 0.8"))
    assert read_suite(path).digest not in digests


CHANGES = [
    ("confidence: 0.9", "metric"),
    ("undecided: fail", "metric"),
    ("tolerance: 0.1", "metric"),
    ("licenses: [mit]", ""),
    ("scanned: true", ""),
    ("latency: {p95_ms: 5}", ""),
    ("latency: {p95_ms: 5, concurrency: 2}", ""),
    ("resources: {memory: 1 GiB}", ""),
]


def test_whatever_is_asked_is_in_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    digests = set()
    for change, part in [("", ""), *CHANGES]:
        path.write_text(METRIC + (f"  {change}\n" if part else f"{change}\n"))
        digests.add(read_suite(path).digest)
    assert len(digests) == len(CHANGES) + 1


def test_one_or_a_list(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    found = []
    for text in ("latency: {p95_ms: 5}", "latency: [{p95_ms: 5}]"):
        path.write_text(text)
        found.append(read_suite(path))
    assert found[0] == found[1]
    assert found[0].digest == found[1].digest


def test_data_sets_lie_beside_the_suite(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(METRIC)
    (metric,) = read_suite(path).metric
    assert metric.dataset == str(tmp_path / "digits.npz")


def _one_line(error: ModelyardError, *parts: str) -> None:
    assert "\n" not in str(error)
    assert all(part in str(error) for part in parts), str(error)
