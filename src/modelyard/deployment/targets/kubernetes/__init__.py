"""The Kubernetes target: pods that the cluster's own controllers roll over, told what to do by server-side apply.

What a version becomes is a pure function (`objects`), and so is what a rollout has come to (`progress`). Everything
that talks to a cluster needs the extra `kubernetes`, so the names below are loaded when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.deployment.targets.kubernetes.client import KubernetesClient

__all__ = ["KubernetesClient"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'modelyard.deployment.targets.kubernetes' has no attribute {name!r}")
    return getattr(import_module("modelyard.deployment.targets.kubernetes.client"), name)
