"""The sections that modelyard itself reads: what a key of each means, and which values it takes.

Every other section is the team's own and holds any JSON. Knows shapes, not whether a model that is named exists.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from modelyard.errors import InvalidInput
from modelyard.refs import ModelRef
from modelyard.store.documents import problem

EngineName = Literal["vllm", "ollama", "llamacpp", "pytorch", "torchserve"]
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
    max_requests: int | None = Field(None, ge=1, description="requests under way at most; more get 503")


class RateLimit(_Value):
    """How many requests each token may send to a model."""

    requests_per_minute: int = Field(ge=1)
    burst: int | None = Field(None, ge=1, description="at once; None: a minute's worth")


class External(_Value):
    """An engine that is run elsewhere and answers behind the gateway under the key's name."""

    engine: EngineName
    url: str = Field(pattern=r"^https?://[^/]+/?$")
    model: str | None = Field(None, description="what the engine calls the model; None: as the key does")


class Variants(_Value):
    """Models that share a task's requests by weight; written as a text, one model."""

    variants: dict[str, Annotated[int, Field(ge=0)]] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return {"variants": {value: 1}} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _somebody(self) -> Variants:
        if not any(self.variants.values()):
            raise ValueError("one variant at least needs a weight above 0")
        return self


# section → the type of its values
SECTIONS: dict[str, TypeAdapter[Any]] = {
    "embeddings": TypeAdapter(Variants),  # key: a task, such as semantic-search; `_` is taken as `-`
    "engines": TypeAdapter(EngineName),  # key: a model's name
    "external": TypeAdapter(External),  # key: a model's name at the gateway
    "rate-limits": TypeAdapter(RateLimit),  # key: a model's name, or ANY_MODEL
    "routing": TypeAdapter(RoutingRule),  # key: a model's name
    "validation": TypeAdapter(dict[str, JsonValue]),  # key: a model's name, or TASK and one; a suite, read elsewhere
}


def canonical(section: str, key: str) -> str:
    """A key as it is kept: the tasks of `embeddings` are one, whether written semantic-search or semantic_search."""
    return key.replace("_", "-") if section == "embeddings" else key


def parse(section: str, key: str, value: Any) -> Any:
    """The value as the section's type; of a section that is the team's own, as it is. Raises InvalidInput."""
    adapter = SECTIONS.get(section)
    if adapter is None:
        return value
    try:
        parsed = adapter.validate_python(value)
    except ValidationError as error:
        raise InvalidInput(f"{section}.{key} can't be {value!r}: {problem(error)}", remedy=_remedy(adapter)) from error
    for ref in _refs(section, key, parsed):
        ModelRef.parse(ref)
    return parsed


def _remedy(adapter: TypeAdapter[Any]) -> str:
    """What may be written instead."""
    schema = adapter.json_schema()
    if keys := schema.get("properties"):
        return f"write a JSON object with some of {', '.join(keys)}"
    return f"use one of {', '.join(schema['enum'])}" if "enum" in schema else "write a JSON object"


def _refs(section: str, key: str, parsed: Any) -> tuple[str, ...]:
    """The texts in a value, and its key, that must name a model."""
    if section == "embeddings":
        return tuple(parsed.variants)
    if section == "validation":
        return () if key.startswith(TASK) else (key,)
    names = (key,) if key != ANY_MODEL or section != "rate-limits" else ()
    if section == "routing":
        mirror = (parsed.mirror.to,) if parsed.mirror else ()
        return (*names, *mirror, *parsed.fallback, *(f"{key}:{selector}" for selector in parsed.split))
    return names
