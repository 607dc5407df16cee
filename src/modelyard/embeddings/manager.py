"""EmbeddingManager: the embedding model of a task, as the configuration says now.

Knows tasks, variants and what is loaded; how vectors are computed is `model`'s business.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from modelyard import defaults
from modelyard.configuration import ConfigurationManager, Watch
from modelyard.configuration.sections import canonical
from modelyard.embeddings import model as models
from modelyard.embeddings import splits
from modelyard.embeddings.following import Follower
from modelyard.embeddings.loaded import LoadedModels
from modelyard.embeddings.model import EmbeddingModel
from modelyard.errors import InvalidInput, NotFound
from modelyard.repository import ModelRepository, ModelVersion

SECTION = "embeddings"
# Where the models that modelyard assumes by itself come from.
SOURCES = {"all-MiniLM-L6-v2": "hf://sentence-transformers/all-MiniLM-L6-v2"}

Load = Callable[[ModelVersion, Path], EmbeddingModel]

_log = logging.getLogger(__name__)


class EmbeddingManager:
    """The models of the section `embeddings`: key a task, value a model or `{"variants": {model: weight}}`.

    The repository, and `check`, which may refuse a version before it is loaded, come from the settings when not given.
    At most `max_models` of `max_bytes` together stay loaded. Threads may share it.
    """

    def __init__(
        self,
        config_manager: ConfigurationManager,
        *,
        repository: ModelRepository | None = None,
        check: Callable[[ModelVersion], None] | None = None,
        max_models: int = 8,
        max_bytes: int = 4 * 1024**3,
        load: Load = models.load,
    ) -> None:
        self.config_manager = config_manager
        self.models = LoadedModels(max_models=max_models, max_bytes=max_bytes)
        if repository is None or check is None:
            own, allowed = defaults.yard().embedding_parts(config_manager.storage)
            repository, check = repository or own, check or allowed
        self._repository: ModelRepository = repository
        self._check = check
        self._load = load
        self._follower = Follower(repository.resolve)
        self._exposures = splits.Exposures()
        self._watch: Watch | None = None
        self._watching = threading.Lock()

    def get_embedding_model(self, task_type: str, *, key: str | None = None) -> EmbeddingModel:
        """The model for a task: `semantic-search`, `classification`, `clustering` or any other text; `_` is `-`.

        Of weighted variants the same `key` (a user, a document) always gets the same; without one chance decides.
        Changed configuration counts within two seconds. Raises NotFound for a task without a model and for a model
        that is not in the repository, InvalidInput for one that can't be loaded.
        """
        task = canonical(SECTION, task_type)
        variants = self._section().parsed.get(task)
        if variants is None:
            raise NotFound(
                f"no embedding model is configured for the task {task!r}",
                remedy=f"choose one with `modelyard config set {SECTION} {task} MODEL`",
            )
        ref = splits.pick(variants.variants, splits.position(task, key))
        try:
            found = self.model(ref)
        except NotFound as error:
            source = SOURCES.get(ref)
            remedy = f"import it with `modelyard import {source}`" if source else error.remedy
            raise NotFound(f"{error.message}, which the task {task!r} uses", remedy=remedy) from error
        self._exposures.count(task, ref)
        return found

    def model(self, ref: str) -> EmbeddingModel:
        """Any embedding model of the repository, by `name`, `name:version` or `name:tag`.

        Raises NotFound, and InvalidInput for one that can't be loaded.
        """
        version = self._follower.resolve(ref)
        key = f"{version.name}:{version.version}"
        return self.models.obtain(key, version.size, partial(self._fetch_and_load, version))

    def exposures(self) -> dict[str, dict[str, int]]:
        """How often each task was given each of its variants by this manager: task → variant → count."""
        return self._exposures.as_dict()

    def close(self) -> None:
        """Follow the configuration no longer; until the manager is used again."""
        with self._watching:
            if self._watch is not None:
                self._watch.close()
                self._watch = None

    def _section(self) -> Watch:
        watch = self._watch
        if watch is None:
            with self._watching:
                watch = self._watch = self._watch or self.config_manager.watch(SECTION)
        return watch

    def _fetch_and_load(self, version: ModelVersion) -> EmbeddingModel:
        if version.model.format != models.FORMAT:  # before gigabytes come for nothing
            raise InvalidInput(
                f"{version.name}:{version.version} is no embedding model: "
                f"its format is {version.model.format or 'unknown'}",
                remedy=f"register a {models.FORMAT} model",
            )
        self._check(version)
        _log.info("loading the embedding model %s", version.ref)
        return self._load(version, self._repository.fetch(version, recheck=True))
