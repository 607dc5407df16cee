"""Validation suites: what a version must show before production. A YAML file, checked when it is read.

name: digits
golden:                       # requests with the answers they must get
  - request: {inputs: [{name: pixels, datatype: FP32, shape: [1, 64], data: [...]}]}
    expect: {outputs: [{name: digit, data: [3]}]}
    tolerance: 0.001          # on numbers
metric:                       # a figure on a data set, which is an .npz file given by its sha256
  name: accuracy
  dataset: digits-test.npz
  digest: sha256:…
  input: {name: pixels, array: x}
  output: {name: logits, array: y}
  threshold: 0.95
  not_worse_than_production: true
  tolerance: 0.0              # how much worse than production is still no worse
latency: {p95_ms: 200, requests: 50}
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from modelyard.errors import InvalidInput, NotFound
from modelyard.refs import Digest


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Golden(_Part):
    """A request, and what its answer must hold: `expect` is compared where it speaks, the rest may be anything."""

    request: dict[str, JsonValue]
    expect: dict[str, JsonValue]
    tolerance: float = Field(1e-6, ge=0)


class Named(_Part):
    """A tensor of the model and the array of the data set that belongs to it."""

    name: str
    array: str


class Metric(_Part):
    name: Literal["accuracy", "mean_absolute_error"] = "accuracy"
    dataset: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    input: Named
    output: Named
    threshold: float
    not_worse_than_production: bool = False
    tolerance: float = Field(0.0, ge=0)

    @property
    def higher_is_better(self) -> bool:
        return self.name == "accuracy"


class Latency(_Part):
    """The 95th percentile of sequential requests may be this at most."""

    p95_ms: float = Field(gt=0)
    requests: int = Field(50, ge=1, le=10_000)


class Suite(_Part):
    """What is asked of a version besides the default checks: it loads, it answers, its signature holds."""

    name: str = Field("default", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    golden: tuple[Golden, ...] = ()
    metric: Metric | None = None
    latency: Latency | None = None

    @property
    def digest(self) -> Digest:
        """sha256 over what the suite asks for, however its file is laid out and wherever its data lies."""
        asked = json.dumps(self.model_dump(mode="json", exclude={"metric": {"dataset"}}), sort_keys=True)
        return Digest(f"sha256:{hashlib.sha256(asked.encode()).hexdigest()}")


DEFAULT = Suite()


def read_suite(path: Path) -> Suite:
    """Raises NotFound and InvalidInput, naming the file and the place. Data sets are looked for beside the file."""
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise NotFound(f"there is no suite {path}", remedy="check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path} can't be read as YAML: {' '.join(str(error).split())}") from error
    try:
        suite = Suite.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidInput(f"{path}: {place}: {first['msg']}", remedy="mend the suite") from error
    if suite.metric:
        dataset = path.parent / suite.metric.dataset
        metric = suite.metric.model_copy(update={"dataset": str(dataset)})
        return suite.model_copy(update={"metric": metric})
    return suite
