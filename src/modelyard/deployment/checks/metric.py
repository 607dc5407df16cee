"""Figures on data sets: above a threshold, and no worse than what is in production on the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.deployment.checks.base import Failed, Planned
from modelyard.deployment.checks.subject import Production, Subject, tensor_like, tensors_of
from modelyard.deployment.client import Answer
from modelyard.deployment.comparison import MIN_ROWS, Interval, means, proportions, verdict
from modelyard.deployment.metrics import Dataset, read_dataset, row_scores
from modelyard.deployment.suite import Metric, Suite
from modelyard.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 256  # in one request, where the model takes any number


def metrics(suite: Suite, subject: Subject) -> Iterator[Planned]:
    """Reads the data sets, so that a suite whose data are not there is found out before anything is asked."""
    for metric in suite.metric:
        dataset = read_dataset(metric)
        yield Planned(metric.name, _what(metric, dataset, subject), partial(_metric, subject, metric, dataset))


def _what(metric: Metric, dataset: Dataset, subject: Subject) -> str:
    rows = f"{len(dataset.expected)} rows of {Path(metric.dataset).name} ({metric.digest[:19]})"
    text = f"{rows}, at {'least' if metric.higher_is_better else 'most'} {metric.threshold:g}"
    if not metric.not_worse_than_production:
        return text
    if subject.production is None:
        return f"{text}; nothing is in production to compare with"
    return (
        f"{text}, not worse than {subject.production.label.partition('@')[0]} by more than {metric.tolerance:g} "
        f"at {_percent(metric)}"
    )


def _metric(subject: Subject, metric: Metric, dataset: Dataset) -> str:
    scores = _measured(subject, subject.ask, metric, dataset)
    value = float(scores.mean())
    good = value >= metric.threshold if metric.higher_is_better else value <= metric.threshold
    if not good:  # also when it is no number
        raise Failed(f"{value:.4f} is worse than the threshold {metric.threshold:.4f}")
    notes = [f"the threshold {metric.threshold:.4f}"]
    if metric.not_worse_than_production and subject.production:
        there = _measured_in_production(subject, subject.production, metric, dataset)
        notes.append(_compared(metric, scores, there))
    return f"{value:.4f} on {len(scores)} rows ({', '.join(notes)})"


def _compared(metric: Metric, scores: NDArray[np.float64], there: NDArray[np.float64]) -> str:
    """What the comparison with production found; raises Failed when the version is worse.

    With fewer rows than MIN_ROWS no interval would say much, so the plain figures are compared.
    """
    worse = there - scores if metric.higher_is_better else scores - there
    value, theirs, allowed = float(scores.mean()), float(there.mean()), f"{metric.tolerance:.4f} is allowed"
    if len(worse) < MIN_ROWS:
        if not float(worse.mean()) <= metric.tolerance:
            raise Failed(
                f"{value:.4f} is worse than production's {theirs:.4f}; {allowed}, and {len(worse)} rows are too few "
                "for an interval"
            )
        return f"production's {theirs:.4f}"
    interval = _interval(metric, worse)
    found = verdict(interval, metric.tolerance)
    bounds = f"worse by {interval.low:.4f} to {interval.high:.4f} at {_percent(metric)}, {allowed}"
    if found == "worse":
        raise Failed(f"{value:.4f} is worse than production's {theirs:.4f}: {bounds}")
    if found == "undecided" and metric.undecided == "fail":
        raise Failed(f"{value:.4f} is not shown to be no worse than production's {theirs:.4f}: {bounds}")
    return f"production's {theirs:.4f}: {bounds}" + (", too few rows to tell" if found == "undecided" else "")


def _interval(metric: Metric, worse: NDArray[np.float64]) -> Interval:
    lost, gained, same = (int((worse == each).sum()) for each in (1, -1, 0))
    if metric.name == "accuracy" and lost + gained + same == len(worse):
        return proportions(lost, gained, len(worse), metric.confidence)
    return means(worse, metric.confidence)


def _measured_in_production(
    subject: Subject, production: Production, metric: Metric, dataset: Dataset
) -> NDArray[np.float64]:
    try:
        scores = _measured(subject, production.ask, metric, dataset)
    except Failed as failed:
        raise production.unusable(str(failed)) from failed
    if not math.isfinite(scores.sum()):
        raise production.unusable(f"its {metric.name} is {scores.mean()}")
    return scores


def _measured(
    subject: Subject, ask: Callable[[dict[str, Any]], Answer], metric: Metric, dataset: Dataset
) -> NDArray[np.float64]:
    """The metric of each row, in as many requests as it takes."""
    import numpy as np

    tensor = _named(subject.described("inputs"), metric.input.name, "input")
    _named(subject.described("outputs"), metric.output.name, "output")
    size = tensor["shape"][0] if tensor["shape"] and tensor["shape"][0] > 0 else _ROWS
    found = []
    for start in range(0, len(dataset.inputs), size):
        rows = dataset.inputs[start : start + size]
        answer = ask({"inputs": [tensor_like(tensor, list(rows.shape), rows.ravel().tolist())]})
        found.append(_array(answer, metric.output.name))
    try:
        return row_scores(metric, np.concatenate(found), dataset.expected)
    except ValueError as error:
        raise Failed(f"the output {metric.output.name!r}: {error}") from error


def _named(tensors: list[dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    """The tensor that a suite speaks of. A name that the model does not have is the suite's fault."""
    found = next((tensor for tensor in tensors if tensor["name"] == name), None)
    if found is None:
        known = ", ".join(tensor["name"] for tensor in tensors)
        raise InvalidInput(
            f"the suite names the {kind} {name!r}, the model has {known or 'none'}",
            remedy="mend the suite or the model",
        )
    return found


def _array(answer: Answer, name: str) -> NDArray[np.generic]:
    import numpy as np

    tensor = next((t for t in tensors_of(answer, "outputs") if t["name"] == name), None)
    if tensor is None:
        raise Failed(f"the model has no output {name!r}")
    try:
        return np.asarray(tensor.get("data")).reshape(tensor["shape"])
    except (ValueError, TypeError) as error:
        raise Failed(f"the output {name!r} can't be read: {error}") from error


def _percent(metric: Metric) -> str:
    return f"{metric.confidence * 100:g} %"
