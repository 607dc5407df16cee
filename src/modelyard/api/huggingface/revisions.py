"""Revisions: what a client writes behind a model's name, and the commit ids that stand for versions.

A commit id is the first 40 digits of a version's digest. So the same content has the same commit id, whatever its
version is called, and clients need not download it again.
"""

from __future__ import annotations

import re
from contextlib import suppress

from modelyard.api.huggingface.missing import Missing
from modelyard.errors import IntegrityError, InvalidInput, NotFound
from modelyard.refs import ModelRef, Version, parse_name, parse_selector
from modelyard.repository import ModelRepository, ModelVersion

MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_KEPT = 100_000
_ADDED = "sentence-transformers/"


def commit_id(version: ModelVersion) -> str:
    """40 hex digits, as clients expect."""
    return version.digest.hex[:40]


class Revisions:
    """Finds versions by revision. Commit ids never change, so each manifest is read for its own only once."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository
        self._commits: dict[tuple[str, Version], str] = {}

    def name(self, asked: str) -> str:
        """The model's name: the library sentence-transformers puts its own namespace before a name that has none."""
        if asked.startswith(_ADDED):
            try:
                self.versions(asked)
            except Missing:
                return asked.removeprefix(_ADDED)
        return asked

    def find(self, name: str, revision: str) -> ModelVersion:
        """The version a tag, a version or a commit id means now.

        Raises Missing for a model or a revision that is not there, or can't be by its spelling.
        """
        self._check(name)
        if _COMMIT.fullmatch(revision) and (found := self._by_commit(name, revision)):
            return found
        try:
            version, tag = parse_selector(revision)
            return self._repository.resolve(ModelRef(name, version, tag))
        except (InvalidInput, NotFound) as error:
            self.versions(name)
            raise Missing("RevisionNotFound", error.message, remedy=error.remedy) from error

    def versions(self, name: str) -> list[Version]:
        """Ascending. Raises Missing for a model that is not there."""
        self._check(name)
        try:
            return self._repository.versions(name)
        except NotFound as error:
            raise Missing("RepoNotFound", error.message, remedy=error.remedy) from error

    def commit(self, name: str, version: Version) -> str:
        """A version's commit id. Raises NotFound, IntegrityError."""
        known = self._commits.get((name, version))
        return known or self._remember(self._repository.resolve(ModelRef(name, version)))

    def _by_commit(self, name: str, commit: str) -> ModelVersion | None:
        """The highest version with this content: the one that `main` means, if there are several."""
        for version in reversed(self.versions(name)):
            with suppress(NotFound, IntegrityError):  # one that can't be read is not the one that is asked for
                if self.commit(name, version) == commit:
                    return self._repository.resolve(ModelRef(name, version))
        return None

    def _remember(self, version: ModelVersion) -> str:
        if len(self._commits) >= _KEPT:
            self._commits.clear()
        return self._commits.setdefault((version.name, version.version), commit_id(version))

    @staticmethod
    def _check(name: str) -> None:
        try:
            parse_name(name)
        except InvalidInput as error:
            raise Missing("RepoNotFound", error.message, remedy=error.remedy) from error
