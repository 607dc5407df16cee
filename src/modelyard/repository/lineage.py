"""Where a version comes from and what was made of it, as far as this repository knows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from modelyard.errors import InvalidInput, ModelyardError, NotFound
from modelyard.refs import ModelRef
from modelyard.repository.manifest import ModelVersion

BASE = "base_model"
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Link:
    """One step: `child` names `parent` in its lineage as `kind`. `depth` counts steps from the version asked about."""

    child: str
    kind: str
    parent: str
    depth: int


def pinned(lineage: dict[str, str], resolve: Callable[[ModelRef], ModelVersion]) -> dict[str, str]:
    """Lineage whose base model, if it is one of this repository, is written with its exact version and digest.

    A base model that is kept elsewhere stays as it is written. Raises InvalidInput for what is no text, NotFound for a
    base model that is written with a version this repository does not have.
    """
    for key, value in lineage.items():
        if not isinstance(value, str) or not key:
            raise InvalidInput(f"lineage {key!r} is not text", remedy="write it as name:v1.0.0")
    if BASE not in lineage:
        return lineage
    try:
        ref = ModelRef.parse(lineage[BASE])
    except InvalidInput:
        return lineage
    try:
        return lineage | {BASE: str(resolve(ref).ref)}
    except NotFound:
        if ref.digest:  # made elsewhere, of exactly this
            return lineage
        raise


def ancestors(version: ModelVersion, resolve: Callable[[ModelRef], ModelVersion]) -> Iterator[Link]:
    """What a version was made of, and what that was made of; ends at what this repository does not have."""
    seen, current = set(), version
    for depth in range(1, _DEEPEST):
        yield from (Link(str(current.ref), kind, parent, depth) for kind, parent in sorted(current.lineage.items()))
        seen.add(current.ref)
        try:
            current = resolve(ModelRef.parse(current.lineage.get(BASE, "")))
        except ModelyardError:
            return
        if current.ref in seen:
            return


def descendants(version: ModelVersion, children: Callable[[str], Iterable[str]]) -> Iterator[Link]:
    """What was made of a version, and what was made of that, nearest first.

    `children` gives, for a version as lineage names it, those whose base model it is, written the same way.
    """
    layer, seen = [str(version.ref)], {str(version.ref)}
    for depth in range(1, _DEEPEST):
        links = [Link(child, BASE, parent, depth) for parent in layer for child in sorted(children(parent))]
        yield from links
        layer = [link.child for link in links if link.child not in seen]
        seen.update(layer)
        if not layer:
            return
