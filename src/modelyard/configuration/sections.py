"""The sections that modelyard itself reads: what a key of each means, and which values it takes.

Every other section is the team's own and holds any JSON. Knows shapes, not whether a model that is named exists.
"""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from modelyard.errors import InvalidInput
from modelyard.refs import ModelRef
from modelyard.wording import fields, phrase, problem

EngineName = Literal["vllm", "ollama", "llamacpp", "pytorch", "torchserve"]
_MOST = 2**31 - 1  # what the gateway can count
ANY_MODEL = "*"
TASK = "task:"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mirror(_Value):
    """Where copies of requests go; their answers are dropped."""

    to: str = Field(description="a model's name at the gateway, such as `digits:staging`")
    percent: float = Field(100, gt=0, le=100, description="of the requests")


class RoutingRule(_Value):
    """How the requests to one model's name are routed at the gateway, beyond what its deployment says."""

    split: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="versions, tags or environments of the model with their weights: `{'v1.0.0': 90, 'v1.1.0': 10}`; "
        "empty: the production deployment",
    )
    mirror: Mirror | None = None
    fallback: tuple[str, ...] = Field((), description="names that answer in its place, in order, when it can't")
    timeout_s: float | None = Field(None, gt=0, description="a deadline for the whole answer; None: none")
    max_requests: int | None = Field(None, ge=1, le=_MOST, description="requests under way at most; more get 503")


class RateLimit(_Value):
    """How many requests each token may send to a model."""

    requests_per_minute: int = Field(ge=1, le=_MOST)
    burst: int | None = Field(None, ge=1, le=_MOST, description="at once; None: a minute's worth")


class External(_Value):
    """An engine that is run elsewhere and answers behind the gateway under the key's name."""

    engine: EngineName
    url: str = Field(pattern=r"^https?://[^/]+/?$")
    model: str | None = Field(None, description="what the engine calls the model; None: as the key does")


class Variants(_Value):
    """Models that share a task's requests by weight; written as a text, one model."""

    variants: dict[str, Annotated[int, Field(ge=0)]]

    @model_validator(mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return {"variants": {value: 1}} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _somebody(self) -> Variants:
        if not self.variants:
            raise ValueError("name at least one variant")
        if not any(self.variants.values()):
            raise ValueError("give at least one variant a weight above 0")
        return self


class RolloutAnalysis(_Value):
    """What a new version is held against while it takes over."""

    min_requests: int = Field(100, ge=10, description="that each version must have answered before the new one passes")
    failure_margin: float = Field(0.01, ge=0, lt=1, description="how much larger the rate of failures may be")
    percentile: float = Field(0.95, gt=0, lt=1, description="of the latency that is compared")
    latency_factor: float = Field(1.5, ge=1, description="how many times the old version's that may be")
    confidence: float = Field(0.99, ge=0.5, lt=1, description="of a judgement that the new version is worse")
    interval_s: float = Field(5, ge=0.5, description="between two looks")
    max_wait_s: float = Field(900, ge=0, description="how long a step waits for enough requests; then it is paused")


MetricText = Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*:(lower|higher)(:[0-9.eE+-]+)?$")]


class Rollout(_Value):
    """How a new version of a model takes over in production, where `promote` does not say it."""

    strategy: Literal["rolling", "canary"] = "rolling"
    steps: str = Field(
        "5,25,50",
        pattern=r"^[0-9]+(:[^,]+)?(,[0-9]+(:[^,]+)?)*$",
        description="of a canary: percentages, each with its seconds or `resume`, such as `5,25:600,50:resume`",
    )
    step_pause_s: float = Field(60, ge=0, description="how long a step takes at least that has no seconds of its own")
    surge: int = Field(1, ge=0, le=64, description="replicas that run beyond those wanted at most")
    unavailable: int = Field(0, ge=0, le=64, description="replicas that may be missing meanwhile")
    keep_warm_s: float = Field(0, ge=0, description="how long old replicas stay ready after the switch")
    analysis: bool | None = Field(None, description="None: for a canary, not for a rolling update")
    bounds: RolloutAnalysis = Field(default_factory=RolloutAnalysis, description="of the analysis")
    metrics: tuple[MetricText, ...] = Field(
        (),
        description="functions of the team's own that both versions are compared by, each with what is better and how "
        "much worse is allowed: `quality.py:error:lower:0.02`",
    )


Webhook = Annotated[str, Field(pattern=r"^https?://[^/\s@]+(/\S*)?$")]

# section → the type of its values
SECTIONS: dict[str, TypeAdapter[Any]] = {
    "embeddings": TypeAdapter(Variants),  # key: a task, such as semantic-search; `_` is taken as `-`
    "engines": TypeAdapter(EngineName),  # key: a model's name
    "events": TypeAdapter(Webhook),  # key: webhook, an address that every change of a deployment is sent to
    "external": TypeAdapter(External),  # key: a model's name at the gateway
    "rate-limits": TypeAdapter(RateLimit),  # key: a model's name, or ANY_MODEL
    "rollout": TypeAdapter(Rollout),  # key: a model's name, or ANY_MODEL
    "routing": TypeAdapter(RoutingRule),  # key: a model's name
    "validation": TypeAdapter(dict[str, JsonValue]),  # key: a model's name, or TASK and one; a suite, read elsewhere
}


# the last step to a value → one that is written as it should be
_EXAMPLES = {
    "url": "write an address such as http://10.0.0.1:8080",
    "steps": "write steps such as 5,25:600,50:resume",
    "metrics": "write each as quality.py:error:lower:0.02",
    "": "write an address such as https://hooks.example.com/modelyard",
}


def canonical(section: str, key: str) -> str:
    """A key as it is kept: the tasks of `embeddings` are one, whether written semantic-search or semantic_search."""
    return key.replace("_", "-") if section == "embeddings" else key


def parse(section: str, key: str, value: Any) -> Any:
    """The value as the section's type; of a section that is the team's own, as it is. Raises InvalidInput."""
    adapter = SECTIONS.get(section)
    if adapter is None:
        return value
    if section == "events" and key != "webhook":
        raise InvalidInput(f"the configuration section events has no {key!r}", remedy="set events webhook")
    _refuse_broken_json(section, key, value)
    try:
        parsed = adapter.validate_python(value)
    except ValidationError as error:
        raise _refusal(section, key, value, error) from error
    for ref in _refs(section, key, parsed):
        ModelRef.parse(ref)
    if section == "routing" and key in parsed.fallback:
        raise InvalidInput(f"routing.{key} falls back to {key} itself", remedy="name another model")
    if section == "rollout":
        _refuse_idle_steps(key, parsed)
    return parsed


def refuse_misspelt(section: str) -> None:
    """Raises InvalidInput for a section of the team's own that is called almost like one that modelyard reads."""
    close = difflib.get_close_matches(section, SECTIONS, 1, cutoff=0.8)
    if close and section not in SECTIONS:
        raise InvalidInput(f"modelyard reads no configuration section {section!r}", remedy=f"did you mean {close[0]}?")


def _refuse_broken_json(section: str, key: str, value: Any) -> None:
    """A text that begins as an object or a list was meant to be one."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return
    try:
        json.loads(value)
    except ValueError as error:
        raise InvalidInput(f"{section}.{key}: {value!r} is broken JSON: {error}", remedy="mend it") from error


def _refuse_idle_steps(key: str, rollout: Rollout) -> None:
    """Without a strategy beside them, steps are those of a canary that a promotion asks for."""
    said = rollout.model_fields_set
    idle = [name for name in ("steps", "step_pause_s") if name in said]
    if idle and "strategy" in said and rollout.strategy == "rolling":
        raise InvalidInput(
            f"rollout.{key}: a rolling update has no steps",
            remedy=f"use the strategy canary, or leave {' and '.join(idle)} out",
        )


def _refusal(section: str, key: str, value: Any, error: ValidationError) -> InvalidInput:
    """What is wrong with a value, and what may be written instead."""
    first, schema = error.errors()[0], SECTIONS[section].json_schema()
    *place, last = first["loc"] or ("",)
    if first["type"] == "extra_forbidden":
        where = ".".join((section, *map(str, place)))
        known = fields(schema, place)
        return InvalidInput(f"{where} has no {str(last)!r} (in {key})", remedy=f"use one of {', '.join(known)}")
    if first["type"] == "value_error":
        return InvalidInput(f"{section}.{key} can't be {value!r}: {phrase(first)}", remedy="mend it")
    if first["type"] == "string_pattern_mismatch":
        where = ".".join(map(str, (section, key, *filter(None, first["loc"]))))
        named = next((step for step in reversed(first["loc"]) if isinstance(step, str)), "")
        return InvalidInput(f"{where} can't be {first['input']!r}", remedy=_EXAMPLES[named])
    if keys := schema.get("properties"):
        remedy = f"write a JSON object with some of {', '.join(keys)}"
    elif "pattern" in schema:
        remedy = _EXAMPLES[""]
    else:
        remedy = f"use one of {', '.join(schema['enum'])}" if "enum" in schema else "write a JSON object"
    return InvalidInput(f"{section}.{key} can't be {value!r}: {problem(error)}", remedy=remedy)


def _refs(section: str, key: str, parsed: Any) -> tuple[str, ...]:
    """The texts in a value, and its key, that must name a model."""
    if section == "embeddings":
        return tuple(parsed.variants)
    if section == "events":
        return ()
    if section == "validation":
        return () if key.startswith(TASK) else (key,)
    names = (key,) if key != ANY_MODEL or section not in ("rate-limits", "rollout") else ()
    if section == "routing":
        mirror = (parsed.mirror.to,) if parsed.mirror else ()
        return (*names, *mirror, *parsed.fallback, *(f"{key}:{selector}" for selector in parsed.split))
    return names
