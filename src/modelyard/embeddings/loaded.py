"""The models that are loaded: each once, however many threads ask at once; as many as the bounds allow.

Knows keys, sizes and who was asked for longest ago; knows nothing of how a model is loaded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from modelyard.embeddings.model import EmbeddingModel


@dataclass(frozen=True, slots=True)
class _Place:
    size: int
    future: Future[EmbeddingModel] = field(default_factory=Future)

    @property
    def loaded(self) -> bool:
        return self.future.done()


class LoadedModels(Mapping[str, EmbeddingModel]):
    """Loaded models by `name:version`.

    Beyond the bounds the one that was asked for longest ago goes; those who hold it keep it. The newest stays even if
    it alone is larger than `max_bytes`.
    """

    def __init__(self, *, max_models: int, max_bytes: int) -> None:
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._places: OrderedDict[str, _Place] = OrderedDict()

    def obtain(self, key: str, size: int, load: Callable[[], EmbeddingModel]) -> EmbeddingModel:
        """The model, loaded by the first who asks; the others wait. A load that fails is tried again by the next."""
        with self._lock:
            place = self._places.get(key)
            mine = place is None
            place = place or _Place(size)
            self._places[key] = place
            self._places.move_to_end(key)
        if not mine:
            return place.future.result()
        try:
            model = load()
        except BaseException as error:
            with self._lock:
                del self._places[key]
            place.future.set_exception(error)
            raise
        place.future.set_result(model)
        self._shrink()
        return model

    def _shrink(self) -> None:
        with self._lock:
            *older, _ = list(self._places.items())
            for key, place in older:
                if len(self._places) <= self._max_models and self._bytes() <= self._max_bytes:
                    return
                if place.loaded:
                    del self._places[key]

    def _bytes(self) -> int:
        return sum(place.size for place in self._places.values())

    def __getitem__(self, key: str) -> EmbeddingModel:
        with self._lock:
            place = self._places[key]
        if not place.loaded:
            raise KeyError(key)
        return place.future.result()

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter([key for key, place in self._places.items() if place.loaded])

    def __len__(self) -> int:
        return len(list(iter(self)))
