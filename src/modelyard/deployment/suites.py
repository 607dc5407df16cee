"""Which suite counts for a version: the one that is given, else the configuration's for the model or its task, else
the one beside the model's files, else the default."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.configuration.sections import TASK
from modelyard.deployment.suite import DEFAULT, Suite, parse_suite, read_document
from modelyard.errors import NotFound
from modelyard.repository import ModelRepository, ModelVersion
from modelyard.store.files import Filter

SECTION = "validation"  # of the configuration; key: a model's name, or task:NAME; value: a suite
FILE = "validation.yaml"  # beside the model's files


@dataclass(frozen=True, slots=True)
class Chosen:
    """A suite and where it comes from. `given` by whoever asks; `required`: it must have passed, whatever else has."""

    suite: Suite
    origin: str
    given: bool = False
    required: bool = True


@dataclass(frozen=True, slots=True)
class Suites:
    """`configured` gives the section of the configuration, when it is needed."""

    repository: ModelRepository
    configured: Callable[[], Mapping[str, Any]]

    def choose(self, version: ModelVersion, given: Suite | None = None) -> Chosen:
        """Raises InvalidInput and NotFound, naming the place, for a suite that can't be read."""
        if given:
            return Chosen(given, "given", given=True)
        section = self.configured()
        for key in (version.name, f"{TASK}{version.model.task}"):
            if key in section:
                where = f"{SECTION}.{key} of the configuration"
                files = Files(self.repository, version, where, elsewhere=True)
                return Chosen(parse_suite(section[key], where, files), where)
        if any(file.path == FILE for file in version.files):
            return Chosen(self._beside(version), f"{FILE} of the version")
        return Chosen(DEFAULT, "the default suite", required=False)

    def _beside(self, version: ModelVersion) -> Suite:
        where = f"{FILE} of {version.name}:{version.version}"
        files = Files(self.repository, version, where)
        return parse_suite(read_document(files(FILE, None), where), where, files)


@dataclass(frozen=True, slots=True)
class Files:
    """Where the other files lie of what has no folder of its own: in the version, by their sha256 or path; with
    `elsewhere` also on this machine."""

    repository: ModelRepository
    version: ModelVersion
    where: str
    elsewhere: bool = False

    def __call__(self, name: str, digest: str | None) -> Path:
        found = [f for f in self.version.files if digest and f"sha256:{f.sha256}" == digest]
        found += [f for f in self.version.files if f.path == name]
        if found:
            path = found[0].path
            return self.repository.fetch(self.version, only=Filter(include=(glob.escape(path),))) / path
        if not self.elsewhere:
            raise NotFound(f"{self.where}: {name} is not among the version's files", remedy="mend the suite")
        return Path(name)
