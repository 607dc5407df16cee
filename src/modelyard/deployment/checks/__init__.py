"""The checks of validation, by name. Each turns the part of a suite that is about it into what is to be looked at.

A new check is a function here and a field of `Suite`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelyard.deployment.checks import answering, custom, load, metric, records, resources
from modelyard.deployment.checks.base import Planned
from modelyard.deployment.checks.subject import Subject
from modelyard.deployment.suite import Suite

Plan = Callable[[Suite, Subject], Iterator[Planned]]

# What is looked at without asking the model.
RECORDED: dict[str, Plan] = {
    "scanned": records.scanned,
    "signed": records.signed,
    "licenses": records.licensed,
}

# In this order. Without an answer to the first, the others would say nothing new.
ASKED: dict[str, Plan] = {
    "answers": answering.answers,
    "signature": answering.signature,
    "golden": answering.golden,
    "metric": metric.metrics,
    "custom": custom.custom,
    "latency": load.load,
    "resources": resources.resources,
}
