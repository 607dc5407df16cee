"""Whose code may run in this process: models that bring a handler.py are served only when somebody allowed it.

Knows names and digests; what the code does is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.errors import InvalidInput, Refused
from modelyard.refs import Digest, ModelRef
from modelyard.repository.manifest import ModelVersion

CODE = frozenset({"custom"})


def require_trust(version: ModelVersion, trusted: Iterable[str]) -> None:
    """Raises Refused when the version's format is code and `trusted` names neither its model nor its digest."""
    if version.model.format in CODE and not is_trusted(version, trusted):
        raise Refused(
            f"{version.name}:{version.version} is served by Python code of its own (handler.py), which is not trusted",
            remedy=f"read it, then add {version.digest} to serving.trust_code, or serve it with --trust-code",
        )


def is_trusted(version: ModelVersion, trusted: Iterable[str]) -> bool:
    """Whether `trusted` names the version's model or its digest. Raises InvalidInput for an entry that is neither."""
    return any(_names(entry, version) for entry in trusted)


def _names(entry: str, version: ModelVersion) -> bool:
    """An entry is a digest, or a name, which may be followed by a version or a digest."""
    try:
        if entry.startswith("sha256:"):
            return Digest.parse(entry) == version.digest
        ref = ModelRef.parse(entry)
    except InvalidInput as error:
        raise InvalidInput(
            f"serving.trust_code holds {entry!r}: {error.message}", remedy="write a model's name or a digest"
        ) from error
    return (
        ref.name == version.name
        and ref.tag is None
        and ref.version in (None, version.version)
        and ref.digest in (None, version.digest)
    )
