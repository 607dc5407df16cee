"""MLflow's documents, as far as we read them. The same for MLflow 2 and 3; what only one of them has is optional."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Pair(_Document):
    key: str
    value: str = ""


class Metric(_Document):
    """`value` is text where it is no number that JSON has: NaN, Infinity."""

    key: str
    value: float | str = 0.0

    @field_validator("value")
    @classmethod
    def _finite(cls, value: float | str) -> float | str:
        return value if isinstance(value, str) or math.isfinite(value) else str(value)


class Alias(_Document):
    alias: str
    version: str


class ModelVersion(_Document):
    name: str
    version: str
    creation_timestamp: int = 0
    description: str = ""
    run_id: str = ""
    source: str = ""
    status: str = "READY"
    current_stage: str = "None"
    tags: tuple[Pair, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        return int(self.version) if self.version.isdecimal() else 0

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value


class RegisteredModel(_Document):
    name: str
    description: str = ""
    tags: tuple[Pair, ...] = ()
    aliases: tuple[Alias, ...] = ()
    latest_versions: tuple[ModelVersion, ...] = ()


class OneVersion(_Document):
    model_version: ModelVersion


class OneModel(_Document):
    registered_model: RegisteredModel


class Models(_Document):
    registered_models: tuple[RegisteredModel, ...] = ()
    next_page_token: str = ""


class Versions(_Document):
    model_versions: tuple[ModelVersion, ...] = ()
    next_page_token: str = ""


class Download(_Document):
    artifact_uri: str


class RunInfo(_Document):
    run_id: str
    run_name: str = ""
    experiment_id: str = ""
    user_id: str = ""
    status: str = ""
    start_time: int = 0
    artifact_uri: str = ""


class Data(_Document):
    metrics: tuple[Metric, ...] = ()
    params: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()


class Output(_Document):
    model_id: str


class Outputs(_Document):
    model_outputs: tuple[Output, ...] = ()


class Run(_Document):
    info: RunInfo
    data: Data = Data()
    outputs: Outputs = Outputs()


class OneRun(_Document):
    run: Run


class LoggedInfo(_Document):
    model_id: str
    name: str = ""
    artifact_uri: str
    status: str = ""
    creation_timestamp_ms: int = 0
    source_run_id: str = ""
    tags: tuple[Pair, ...] = ()


class Logged(_Document):
    info: LoggedInfo
    data: Data = Data()


class OneLogged(_Document):
    model: Logged


class Experiment(_Document):
    experiment_id: str
    name: str = ""


class OneExperiment(_Document):
    experiment: Experiment


class Artifact(_Document):
    path: str
    is_dir: bool = False
    file_size: int = Field(0, ge=0)


class Artifacts(_Document):
    files: tuple[Artifact, ...] = ()


def pairs(found: Sequence[Pair]) -> dict[str, str]:
    return {pair.key: pair.value for pair in found}
