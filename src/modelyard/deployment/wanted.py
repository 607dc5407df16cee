"""What is wanted: all that the reconciler reads from the store, gathered beside its loop.

A store that hangs or is away delays nothing: the last answer counts until a newer one is there. Knows no replica and no
gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from modelyard.deployment.routing import NO_TAGS, Deployments, Tags
from modelyard.deployment.rules import Rules
from modelyard.errors import ModelyardError, NotFound
from modelyard.repository import Environment

_INTERVAL_S = 0.5
_RARE_INTERVAL_S = 2.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The environments' deployments, and what else decides about replicas and routes."""

    deployments: Deployments = field(default_factory=dict)
    tags: Tags = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)


@dataclass(slots=True)
class Reader:
    """Reads everything anew when it is called. What starts and stops nothing is read less often than the wishes.

    Another thing to know: a field in Wanted, and a line in `_gather_rare`.
    """

    environments: Sequence[Environment]
    clock: Callable[[], float]
    tags: Callable[[str], Mapping[str, str]] = lambda _: {}  # model → its tags that no environment decides
    rules: Callable[[], Rules] = Rules  # what the configuration says; asked each time, as it is known already
    _tags: Tags = field(default_factory=lambda: NO_TAGS)
    _gathered: float = float("-inf")

    def __call__(self) -> Wanted:
        deployments = {environment.name: environment.read() for environment in self.environments}
        if self.clock() - self._gathered >= _RARE_INTERVAL_S:
            self._gather_rare(deployments)
            self._gathered = self.clock()
        return Wanted(deployments, self._tags, self.rules())

    def _gather_rare(self, deployments: Deployments) -> None:
        models = sorted({model for own in deployments.values() for model in own})
        with ThreadPoolExecutor(16) as pool:
            self._tags = dict(zip(models, pool.map(self._tags_of, models), strict=True))

    def _tags_of(self, model: str) -> Mapping[str, str]:
        """None of one that is gone, which holds up no other."""
        try:
            return self.tags(model)
        except NotFound:
            return {}


@dataclass(slots=True)
class Newest:
    """The newest thing that `read` has given; it is asked in another thread, once at a time."""

    read: Callable[[], Wanted]
    executor: Executor
    clock: Callable[[], float]
    _wanted: Wanted | None = None
    _reading: Future[Wanted] | None = None
    _due: float = float("-inf")
    _stale: bool = False
    problem: ModelyardError | None = None  # why the last reading failed

    def get(self) -> Wanted | None:
        """None until the first answer has come. Raises ModelyardError while there never was one but failures."""
        self._take()
        if self._reading is None and self.clock() >= self._due:
            self._reading, self._stale = self.executor.submit(self.read), False
            self._take()
        if self._wanted is None and self.problem is not None:
            raise self.problem
        return self._wanted

    def refresh(self) -> None:
        """Read again at the next occasion: something was changed."""
        self._due, self._stale = float("-inf"), True

    def _take(self) -> None:
        if self._reading is None or not self._reading.done():
            return
        reading, self._reading = self._reading, None
        if not self._stale:
            self._due = self.clock() + _INTERVAL_S
        try:
            self._wanted, self.problem = reading.result(), None
        except ModelyardError as error:
            self.problem = error
