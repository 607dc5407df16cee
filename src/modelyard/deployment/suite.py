"""Validation suites: what a version must show before production. A YAML file, checked when it is read.

name: digits
golden:                       # requests with the answers they must get
  - request: {inputs: [{name: pixels, datatype: FP32, shape: [1, 64], data: [...]}]}
    expect: {outputs: [{name: digit, data: [3]}]}
    tolerance: 0.001          # on numbers
metric:                       # a figure on a data set, which is an .npz file given by its sha256; or a list of them
  name: accuracy
  dataset: digits-test.npz
  digest: sha256:…
  input: {name: pixels, array: x}
  output: {name: logits, array: y}
  threshold: 0.95
  not_worse_than_production: true
  tolerance: 0.0              # how much worse than production is still no worse
latency: {p95_ms: 200, requests_per_s: 50, requests: 400, concurrency: 8}   # or a list of them
resources: {memory: 2 GiB}
scanned: true
signed: true
licenses: [apache-2.0, mit]
custom:
  - check: checks.py:knows_its_name
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from modelyard.errors import InvalidInput, NotFound
from modelyard.refs import Digest
from modelyard.wording import phrase

ASKED_BY = ("messages", "prompt", "input", "inputs")  # what tells the kinds of requests apart
_RULES = 2  # raised when the same words come to ask for something else: evidence of before is stale then
_DIGEST = r"^sha256:[0-9a-f]{64}$"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _asks_something(request: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if not request.keys() & ASKED_BY:
        raise ValueError(f"a request has one of {', '.join(ASKED_BY)}")
    return request


Request = Annotated[dict[str, JsonValue], AfterValidator(_asks_something)]


class Golden(_Part):
    """A request, and what its answer must hold: `expect` is compared where it speaks, the rest may be anything."""

    request: Request
    expect: dict[str, JsonValue]
    tolerance: float = Field(1e-6, ge=0)


class Named(_Part):
    """A tensor of the model and the array of the data set that belongs to it."""

    name: str
    array: str


class Metric(_Part):
    """A figure on a data set; `confidence` and `undecided` are about the comparison with production."""

    name: Literal["accuracy", "mean_absolute_error", "mean_squared_error"] = "accuracy"
    dataset: str
    digest: str = Field(pattern=_DIGEST)
    input: Named
    output: Named
    threshold: float
    not_worse_than_production: bool = False
    tolerance: float = Field(0.0, ge=0)
    confidence: float = Field(0.95, ge=0.5, lt=1)
    undecided: Literal["pass", "fail"] = "pass"

    @property
    def higher_is_better(self) -> bool:
        return self.name == "accuracy"


class Latency(_Part):
    """What requests must get under a load: `concurrency` clients that each ask again as soon as they are answered."""

    p50_ms: float | None = Field(None, gt=0)
    p95_ms: float | None = Field(None, gt=0)
    p99_ms: float | None = Field(None, gt=0)
    requests_per_s: float | None = Field(None, gt=0)
    requests: int = Field(50, ge=1, le=1_000_000)
    duration_s: float | None = Field(None, gt=0, le=3600)
    concurrency: int = Field(1, ge=1, le=256)
    request: Request | None = None

    @model_validator(mode="after")
    def _sound(self) -> Latency:
        if not self.bounds and self.requests_per_s is None:
            raise ValueError("p50_ms, p95_ms, p99_ms or requests_per_s is needed")
        if self.duration_s is not None and "requests" in self.model_fields_set:
            raise ValueError("give requests or duration_s, not both")
        return self

    @property
    def bounds(self) -> dict[int, float]:
        """Percentile → milliseconds at most."""
        given = {50: self.p50_ms, 95: self.p95_ms, 99: self.p99_ms}
        return {percentile: bound for percentile, bound in given.items() if bound is not None}


class Resources(_Part):
    """What a staged replica may take at most, once everything else was asked."""

    memory: ByteSize = Field(gt=0)


class Custom(_Part):
    """A function in a Python file beside the suite. `digest` is that of the file, found out when the suite is read."""

    check: str = Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*$")
    digest: str | None = Field(None, pattern=_DIGEST)

    @property
    def path(self) -> str:
        return self.check.rpartition(":")[0]

    @property
    def function(self) -> str:
        return self.check.rpartition(":")[2]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class Suite(_Part):
    """What is asked of a version besides the default checks: it loads, it answers, its signature holds."""

    name: str = Field("default", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    golden: tuple[Golden, ...] = ()
    metric: Annotated[tuple[Metric, ...], BeforeValidator(_listed)] = ()
    latency: Annotated[tuple[Latency, ...], BeforeValidator(_listed)] = ()
    resources: Resources | None = None
    scanned: bool = False
    signed: bool = False
    licenses: tuple[str, ...] = ()
    custom: tuple[Custom, ...] = ()

    @property
    def digest(self) -> Digest:
        """sha256 over what the suite asks for, however its file is laid out and wherever its data lies."""
        places: Any = {"metric": {"__all__": {"dataset"}}, "custom": {"__all__": {"check"}}}
        asked = self.model_dump(mode="json", exclude=places, exclude_defaults=True)
        asked |= {"rules": _RULES, "functions": [each.function for each in self.custom]}
        return Digest(f"sha256:{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()}")

    @property
    def compares(self) -> bool:
        """Whether the result depends on what is in production."""
        return any(metric.not_worse_than_production for metric in self.metric)


DEFAULT = Suite()

Locate = Callable[[str, str | None], Path]  # a name in the suite and the digest it should have → where it lies


def read_suite(path: Path) -> Suite:
    """Raises NotFound and InvalidInput, naming the file and the place. Other files are looked for beside this one."""
    return parse_suite(read_document(path, str(path)), str(path), lambda name, _: path.parent / name)


def parse_suite(document: Any, where: str, locate: Locate) -> Suite:
    """A suite out of a document. Raises InvalidInput, and NotFound for code that is not there."""
    try:
        suite = Suite.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = _place(first["loc"], document)
        raise InvalidInput(f"{where}: {place}: {phrase(first)}", remedy="mend the suite") from error
    data = [
        metric.model_copy(update={"dataset": str(locate(metric.dataset, metric.digest))}) for metric in suite.metric
    ]
    code = [_located(custom, where, locate) for custom in suite.custom]
    return suite.model_copy(update={"metric": tuple(data), "custom": tuple(code)})


def _located(custom: Custom, where: str, locate: Locate) -> Custom:
    path = locate(custom.path, custom.digest)
    try:
        found = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError as error:
        raise NotFound(f"{where}: custom: {path} can't be read: {error.strerror}", remedy="check the path") from error
    if custom.digest not in (None, found):
        raise InvalidInput(f"{where}: custom: {path} is {found}, not {custom.digest}", remedy="mend the suite")
    return Custom(check=f"{path}:{custom.function}", digest=found)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML's own would take the last one and drop the other's checks."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in counts.items():
            if count > 1:
                raise yaml.MarkedYAMLError(problem=f"{key!r} is given {count} times", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_document(path: Path, where: str) -> Any:
    """What a YAML file holds. Raises NotFound and InvalidInput, naming the file as `where`."""
    try:
        return yaml.load(path.read_text(), _Loader)  # noqa: S506 - a safe one
    except FileNotFoundError:
        raise NotFound(f"there is no suite {where}", remedy="check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InvalidInput(f"{where} can't be read as YAML: {why}", remedy="give a suite written in YAML") from error


def _place(location: tuple[int | str, ...], document: Any) -> str:
    """Where in the document, as it is written: what may be a list need not be one."""
    parts, here = [], document
    for step in location:
        if isinstance(step, int) and not isinstance(here, list):
            continue
        parts.append(str(step))
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            here = None
    return ".".join(parts) or "the file"
