"""Names, versions, tags and digests: parsed once at the edge, frozen types from there on.

Knows the grammar of `name:v1.2.0@sha256:…` and nothing of what exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from modelyard.errors import InvalidInput, Refused

# `auto` and `task` choose a model by other means; the others are paths below /v2/models/<name>.
RESERVED_NAMES = frozenset({"auto", "task", "infer", "ready", "versions"})
COMPUTED_TAGS = {
    "latest": "it is always the highest release",
    "main": "it is always the highest release",
    "staging": "use `modelyard stage`",
    "production": "use `modelyard promote` or `modelyard rollback`",
}

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")
_TAG = re.compile(r"[a-z](?:[a-z0-9-]{0,62}[a-z0-9])?")
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_LABEL = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_LABEL}(?:\.{_LABEL})*))?")
_VERSION_SHAPED = re.compile(r"[vV]?\d+(\.\d+)*([.+-].*)?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def parse_name(text: str) -> str:
    """A model's name, as written. Raises InvalidInput."""
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{text!r} is not a model name",
            remedy="use letters, digits, '.', '_' and '-' (96 at most), optionally after one 'namespace/'",
        )
    for part in text.split("/"):
        if part.lower() in RESERVED_NAMES:
            raise InvalidInput(f"the name {part!r} is reserved", remedy="choose another name")
        if _VERSION_SHAPED.fullmatch(part):
            raise InvalidInput(f"{text!r} looks like a version, not like a name", remedy="choose another name")
    return text


def parse_tag(text: str) -> str:
    """A tag, as written; computed tags are accepted here too. Raises InvalidInput."""
    if not _TAG.fullmatch(text) or _VERSION_SHAPED.fullmatch(text):
        raise InvalidInput(
            f"{text!r} is not a tag",
            remedy="use lower-case letters, digits and '-', beginning with a letter, not in the shape of a version",
        )
    return text


def parse_free_tag(text: str) -> str:
    """A tag that may be moved by hand. Raises Refused for computed ones, naming the verb that moves them."""
    if parse_tag(text) in COMPUTED_TAGS:
        raise Refused(f"the tag {text!r} can't be set by hand", remedy=COMPUTED_TAGS[text])
    return text


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version without build metadata, ordered as SemVer 2.0.0 (section 11) orders them."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Version:
        match = _VERSION.fullmatch(text)
        if match is None:
            why = "build metadata does not order versions" if "+" in text else "it is not a semantic version"
            raise InvalidInput(f"can't take {text!r} as a version: {why}", remedy="write it as v1.2.0 or v1.2.0-rc.1")
        major, minor, patch, prerelease = match.groups()
        return cls(int(major), int(minor), int(patch), tuple(prerelease.split(".")) if prerelease else ())

    def __str__(self) -> str:
        release = f"v{self.major}.{self.minor}.{self.patch}"
        return f"{release}-{'.'.join(self.prerelease)}" if self.prerelease else release

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self._order() < other._order()

    def _order(self) -> tuple[object, ...]:
        labels = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in self.prerelease)
        return (self.major, self.minor, self.patch, not self.prerelease, labels)


@dataclass(frozen=True, slots=True)
class Digest:
    """`sha256:` and 64 lower-case hex digits."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        if not _DIGEST.fullmatch(text):
            raise InvalidInput(f"{text!r} is not a digest", remedy="write it as sha256: and 64 hex digits")
        return cls(text)

    @property
    def hex(self) -> str:
        return self.text.removeprefix("sha256:")

    @property
    def short(self) -> str:
        return self.hex[:12]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a person writes to mean a model: a name, then a version or a tag, then a digest, the last two optional."""

    name: str
    version: Version | None = None
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        head, at, digest = text.partition("@")
        name, colon, selector = head.partition(":")
        version, tag = parse_selector(selector) if colon else (None, None)
        return cls(parse_name(name), version, tag, Digest.parse(digest) if at else None)

    @property
    def selector(self) -> str | None:
        return str(self.version) if self.version else self.tag

    def __str__(self) -> str:
        text = f"{self.name}:{self.selector}" if self.selector else self.name
        return f"{text}@{self.digest}" if self.digest else text


def parse_selector(text: str) -> tuple[Version | None, str | None]:
    """What stands behind the colon: (version, None) or (None, tag). Raises InvalidInput."""
    if _VERSION_SHAPED.fullmatch(text):
        return Version.parse(text), None
    return None, parse_tag(text)
