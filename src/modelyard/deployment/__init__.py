"""From staging through validation to production: plan, reconciler, targets, and the manager with its verbs.

The names below are loaded when they are used, since a process that only serves a model needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Check": "modelyard.deployment.validation",
    "DeploymentManager": "modelyard.deployment.manager",
    "LocalStatus": "modelyard.deployment.manager",
    "ObservedVersion": "modelyard.deployment.observed",
    "Report": "modelyard.deployment.validation",
    "StagedModel": "modelyard.deployment.checks.custom",
    "Status": "modelyard.deployment.status",
    "Suite": "modelyard.deployment.suite",
    "read_suite": "modelyard.deployment.suite",
}

if TYPE_CHECKING:
    from modelyard.deployment.checks.custom import StagedModel
    from modelyard.deployment.manager import DeploymentManager, LocalStatus
    from modelyard.deployment.observed import ObservedVersion
    from modelyard.deployment.status import Status
    from modelyard.deployment.suite import Suite, read_suite
    from modelyard.deployment.validation import Check, Report

__all__ = [
    "Check",
    "DeploymentManager",
    "LocalStatus",
    "ObservedVersion",
    "Report",
    "StagedModel",
    "Status",
    "Suite",
    "read_suite",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'modelyard.deployment' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
