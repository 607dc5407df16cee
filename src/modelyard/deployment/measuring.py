"""Custom metrics of an analysis: whether their code is trusted, what it finds, and which version that speaks for.

A function runs in a process of its own (`observed.py`), with the rights of this one, and gets so much time and no more.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.deployment.canary import GOOD, Verdict
from modelyard.deployment.suite import Locate
from modelyard.errors import InvalidInput, NotFound, Refused, Unavailable
from modelyard.refs import ModelRef
from modelyard.repository import CustomMetric, ModelVersion, Strategy
from modelyard.serving.trust import is_trusted
from modelyard.settings import Settings

LIMIT_S = 30.0  # for both versions together
_LONGEST = 64 * 1024  # characters, as each entry of the journal holds them
_GRACE_S = 5.0  # in which the process ends itself


@dataclass(frozen=True, slots=True)
class Observed:
    """A version and the time that it is judged by, in seconds since the epoch."""

    ref: ModelRef
    start: float
    end: float


Measure = Callable[[CustomMetric, Observed, Observed], tuple[float, float]]  # of the new version and the old one


@dataclass(frozen=True, slots=True)
class Measuring:
    """Takes metrics where the rollouts are judged. `resolve` gives the version, which may be trusted by its name."""

    settings: Settings
    resolve: Callable[[ModelRef], ModelVersion]
    limit_s: float = LIMIT_S

    def __call__(self, metric: CustomMetric, new: Observed, old: Observed) -> tuple[float, float]:
        """The values of both versions. Raises Refused, InvalidInput, Unavailable, in a line, when there are none."""
        trusted = self.settings.serving.trust_code
        if metric.digest not in trusted:
            require_trust(metric, self.resolve(new.ref), trusted)
        gateway, token = self.settings.gateway.url, self.settings.token
        secret = token.get_secret_value() if token else None
        versions = [
            [each.ref.name, str(each.ref.version), [each.start, each.end], gateway, secret] for each in (new, old)
        ]
        first, second = _run(metric, versions, self.limit_s)
        return first, second


def prepared(
    metrics: Sequence[CustomMetric], version: ModelVersion, locate: Locate, trusted: Collection[str]
) -> tuple[CustomMetric, ...]:
    """The metrics with what their files hold, which are trusted and have their functions.

    Raises NotFound, InvalidInput and Refused, naming the metric, before anything has begun.
    """
    found = []
    for metric in metrics:
        with_source = replace(metric, source=_source(metric, locate))
        require_trust(with_source, version, trusted)
        _run(with_source, [], LIMIT_S)
        found.append(with_source)
    return tuple(found)


def require_trust(metric: CustomMetric, version: ModelVersion, trusted: Collection[str]) -> None:
    """Raises Refused for code that nobody has allowed to run here."""
    if not _may_run(metric, version, trusted):
        raise Refused(
            f"the metric {metric.check} is Python code, which is not trusted",
            remedy=f"read it, then add {metric.digest} to serving.trust_code, and start `modelyard up` again",
        )


def require_trust_there(strategy: Strategy, version: ModelVersion, trusted: Collection[str]) -> None:
    """Raises Refused for a metric that this command trusts, but not the `modelyard up` that would take it, which has
    read its settings when it began."""
    for metric in strategy.analysis.metrics if strategy.analysis else ():
        if not _may_run(metric, version, trusted):
            raise Refused(
                f"the metric {metric.check} is Python code, which the `modelyard up` that runs does not trust",
                remedy=f"start it again with {metric.digest} in serving.trust_code",
            )


def _may_run(metric: CustomMetric, version: ModelVersion, trusted: Collection[str]) -> bool:
    return metric.digest in trusted or is_trusted(version, trusted)


def compared(metric: CustomMetric, new: float, old: float) -> Verdict:
    """What two values say of the new version."""
    if not (math.isfinite(new) and math.isfinite(old)):
        return Verdict("too_little", f"{metric.check} has no value yet: it is {new:g}, of the old version {old:g}")
    worse = new - old if metric.better == "lower" else old - new
    if worse <= metric.tolerance:
        return GOOD
    allowed = f"{metric.better} is better, and {metric.tolerance:g} worse is allowed"
    return Verdict("bad", f"its {metric.check} is {new:g}, the old version's {old:g}; {allowed}")


def _source(metric: CustomMetric, locate: Locate) -> str:
    name = metric.check.rpartition(":")[0]
    path = locate(name, None)
    try:
        source = path.read_bytes().decode()
    except OSError as error:
        raise NotFound(f"the metric's file {name} can't be read: {error.strerror}", remedy="check the path") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the metric's file {name} is not written in UTF-8", remedy="mend it") from error
    if len(source) > _LONGEST:
        raise InvalidInput(
            f"the metric's file {name} has {len(source)} characters, and {_LONGEST} are the most", remedy="shorten it"
        )
    return source


def _run(metric: CustomMetric, versions: Sequence[Any], limit_s: float) -> list[float]:
    file, _, function = metric.check.rpartition(":")
    asked = {"file": Path(file).name, "function": function, "source": metric.source}
    text = json.dumps(asked | {"versions": versions, "limit_s": limit_s})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "modelyard.deployment.observed"],
            input=text,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit_s + _GRACE_S,
            check=True,
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise _late(metric, limit_s) from None
    except subprocess.CalledProcessError as error:
        if error.returncode == -signal.SIGALRM:
            raise _late(metric, limit_s) from None
        raise Unavailable(f"the process of the metric {metric.check} ended with {error.returncode}") from None
    except ValueError:
        raise Unavailable(f"the process of the metric {metric.check} gave no answer") from None
    if "error" in found:
        raise InvalidInput(f"the metric {metric.check} failed: {found['error']}", remedy="mend it")
    return [float(value) for value in found["values"]]


def _late(metric: CustomMetric, limit_s: float) -> Unavailable:
    return Unavailable(f"the metric {metric.check} gave nothing within {limit_s:g} s")
