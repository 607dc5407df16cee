"""Custom metrics in processes of their own, which ask a gateway."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from modelyard.deployment.measuring import Measuring, Observed, compared, prepared, require_trust_there
from modelyard.errors import InvalidInput, ModelyardError, NotFound, Refused, Unavailable
from modelyard.refs import ModelRef
from modelyard.repository import Analysis, CustomMetric, ModelVersion, Strategy
from modelyard.settings import GatewaySettings, ServingSettings, Settings

from .bench import VERSION
from .builders import V1, V2
from .model_server import FakeModel, gateway

NEW, OLD = (
    Observed(ModelRef("digit", pin.version, digest=pin.digest), start, 1_700_000_060.0)
    for pin, start in ((V2, 1_700_000_000.0), (V1, 1_699_999_940.0))
)
ASKING = """
ASK = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 3]}]}


def doubled(version):
    print("looking at", version.name)
    return version.ask(ASK)["outputs"][0]["data"][1] - 6
"""


def metric(body: str, *, name: str = "loss") -> CustomMetric:
    return CustomMetric(f"team/quality.py:{name}", "lower", source=body)


def returning(value: str) -> CustomMetric:
    return metric(f"def loss(version):\n    return {value}\n")


def unresolved(_: ModelRef) -> ModelVersion:
    raise AssertionError("a digest that is trusted needs no version")


def measuring(of: CustomMetric, *, url: str = "http://127.0.0.1:1", limit_s: float = 30.0) -> Measuring:
    port = int(url.rpartition(":")[2])
    settings = Settings(
        gateway=GatewaySettings(port=port),
        serving=ServingSettings(trust_code=(of.digest,)),
        token=SecretStr("secret"),
    )
    return Measuring(settings, unresolved, limit_s)


def test_a_function_asks_both_versions_through_the_gateway() -> None:
    models = {"digit:v1.2.0": FakeModel(str(NEW.ref), factor=2.5), "digit:v1.1.0": FakeModel(str(OLD.ref), factor=2.0)}
    asking = metric(ASKING, name="doubled")
    with gateway(models) as url:
        assert measuring(asking, url=url)(asking, NEW, OLD) == (1.5, 0.0)
        models["digit:v1.1.0"].answer = lambda _: (500, {"error": "no weights"})
        with pytest.raises(InvalidInput, match=r"doubled failed: EngineError: digit:v1\.1\.0 answered 500"):
            measuring(asking, url=url)(asking, NEW, OLD)


def test_a_function_knows_the_version_its_time_and_the_gateway() -> None:
    known = metric(
        "from modelyard.deployment import ObservedVersion\n\n\n"
        "def loss(version: ObservedVersion) -> float:\n"
        "    assert (version.name, version.gateway) == ('digit', 'http://127.0.0.1:1')\n"
        "    assert version.end.isoformat() == '2023-11-14T22:14:20+00:00'\n"
        "    return (version.end - version.start).total_seconds() + float(version.version == 'v1.2.0')\n"
    )
    assert measuring(known)(known, NEW, OLD) == (61.0, 120.0)


def test_other_numbers_are_numbers_too() -> None:
    numpy = metric("import numpy\n\n\ndef loss(version):\n    return numpy.float32(0.5)\n")
    assert measuring(numpy)(numpy, NEW, OLD) == (0.5, 0.5)
    unknown = returning("float('nan')")
    assert all(math.isnan(value) for value in measuring(unknown)(unknown, NEW, OLD))


FAILURES: list[tuple[CustomMetric, type[ModelyardError], str]] = [
    (returning("1 / 0"), InvalidInput, "team/quality.py:loss failed: ZeroDivisionError: division by zero; mend it"),
    (returning("None"), InvalidInput, "failed: TypeError: it returned None, which is no number"),
    (returning("True"), InvalidInput, "it returned True, which is no number"),
    (returning("'0.5'"), InvalidInput, "it returned '0.5', which is no number"),
    (returning("exit('enough')"), InvalidInput, "failed: SystemExit: enough"),
    (
        returning("__import__('os')._exit(3)"),
        Unavailable,
        "the process of the metric team/quality.py:loss ended with 3",
    ),
]


@pytest.mark.parametrize(("failing", "kind", "message"), FAILURES)
def test_a_value_that_can_not_be_had(failing: CustomMetric, kind: type[ModelyardError], message: str) -> None:
    with pytest.raises(kind, match=message) as raised:
        measuring(failing)(failing, NEW, OLD)
    assert "\n" not in str(raised.value)


def test_a_function_gets_no_more_than_its_time() -> None:
    slow = returning("__import__('time').sleep(600)")
    with pytest.raises(Unavailable, match=r"the metric team/quality.py:loss gave nothing within 0\.5 s"):
        measuring(slow, limit_s=0.5)(slow, NEW, OLD)


def test_its_code_runs_only_where_it_is_trusted() -> None:
    one = returning("1")
    for trusted in ((), ("another-model", "sha256:" + "0" * 64)):
        there = Measuring(Settings(serving=ServingSettings(trust_code=trusted)), lambda _: VERSION)
        with pytest.raises(Refused, match=f"Python code, which is not trusted; read it, then add {one.digest}"):
            there(one, NEW, OLD)
    by_name = Measuring(Settings(serving=ServingSettings(trust_code=("digit",))), lambda _: VERSION)
    assert by_name(one, NEW, OLD) == (1.0, 1.0)


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., CustomMetric]:
    def prepare(text: str | bytes, function: str = "loss", *, trusted: tuple[str, ...] = ("digit",)) -> CustomMetric:
        (tmp_path / "quality.py").write_bytes(text.encode() if isinstance(text, str) else text)
        asked = CustomMetric(f"quality.py:{function}", "lower", 0.5)
        [found] = prepared([asked], VERSION, lambda name, _: tmp_path / name, trusted)
        return found

    return prepare


GOOD = "def loss(version):\n    return 1\n\n\nscale = 2\n"


def test_a_metric_takes_its_file_along(prepare: Callable[..., CustomMetric]) -> None:
    assert prepare(GOOD) == CustomMetric("quality.py:loss", "lower", 0.5, GOOD)


@pytest.mark.parametrize(
    ("text", "function", "kind", "message"),
    [
        (GOOD, "los", InvalidInput, "quality.py:los failed: AttributeError: module 'quality' has no attribute 'los'"),
        (GOOD, "scale", InvalidInput, "quality.py:scale failed: TypeError: scale is no function"),
        ("import nowhere\n", "loss", InvalidInput, "ModuleNotFoundError: No module named 'nowhere'; mend it"),
        ("def loss(:\n", "loss", InvalidInput, r"SyntaxError: .*quality\.py, line 1"),
        (b"\xff\xfe", "loss", InvalidInput, r"the metric's file quality\.py is not written in UTF-8"),
        ("# " + "x" * 70_000, "loss", InvalidInput, "has 70002 characters, and 65536 are the most"),
    ],
)
def test_one_that_can_not_work_is_found_before_it_begins(
    prepare: Callable[..., CustomMetric], text: str | bytes, function: str, kind: type[ModelyardError], message: str
) -> None:
    with pytest.raises(kind, match=message) as raised:
        prepare(text, function)
    assert "\n" not in str(raised.value)


def test_one_that_is_not_trusted_or_not_there(prepare: Callable[..., CustomMetric], tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"quality\.py:loss is Python code, which is not trusted"):
        prepare(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + GOOD, trusted=())
    assert not (tmp_path / "ran").exists()
    with pytest.raises(NotFound, match=r"the metric's file nowhere\.py can't be read: No such file or directory"):
        prepared([CustomMetric("nowhere.py:loss", "lower")], VERSION, lambda name, _: tmp_path / name, ())


def test_one_that_is_trusted_here_alone() -> None:
    one = returning("1")
    asked = Strategy(analysis=Analysis(metrics=(one,)))
    with pytest.raises(Refused, match=f"the `modelyard up` that runs does not trust; start it .* {one.digest} in"):
        require_trust_there(asked, VERSION, ("another-model",))
    require_trust_there(asked, VERSION, (one.digest,))
    require_trust_there(asked, VERSION, ("digit",))
    require_trust_there(Strategy(), VERSION, ())


def test_the_tolerance_is_in_the_metrics_own_unit() -> None:
    lower, higher = CustomMetric("q.py:ms", "lower", 5.0), CustomMetric("q.py:clicks", "higher", 5.0)
    assert [compared(lower, new, 20.0).kind for new in (0.0, 25.0, 25.1)] == ["good", "good", "bad"]
    assert [compared(higher, new, 20.0).kind for new in (99.0, 15.0, 14.9)] == ["good", "good", "bad"]
