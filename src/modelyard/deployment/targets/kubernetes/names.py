"""Names, labels and annotations of what modelyard keeps in a cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

MANAGER = "modelyard"  # also the field manager of server-side apply

INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
PART_OF = "app.kubernetes.io/part-of"
MANAGED_BY = "app.kubernetes.io/managed-by"
REPLICA, GATEWAY, CONTROLLER = "model-server", "gateway", "controller"

YARD = "modelyard/yard"  # label: whose it is, where several stores share a namespace
ENVIRONMENT = "modelyard/environment"  # label
SLOT = "modelyard/slot"  # label: which of a model's two Deployments
MODEL, VERSION, DIGEST = "modelyard/model", "modelyard/version", "modelyard/digest"
ENGINE, OWNER = "modelyard/engine", "modelyard/owner"
ROLLOUT, WISH = "modelyard/rollout", "modelyard/wish"
TEMPLATE = "modelyard/template"  # on pods: which template they were made of

SLOTS = ("1", "2")  # two versions side by side have a Deployment each; what serves may be in either
_LONGEST = 43  # a slot adds 2 characters, the cluster 17 for a pod's name, which may have 63


def object_name(model: str, environment: str) -> str:
    """What a model's objects in an environment are called; other models' are called otherwise."""
    plain = re.sub(r"[^a-z0-9-]+", "-", model.lower()).strip("-")
    name = plain if plain[:1].isalpha() else f"m-{plain}"
    longest = _LONGEST - len(environment) - 1
    if name != model or len(name) > longest:
        mark = hashlib.sha256(model.encode()).hexdigest()[:8]
        name = f"{name[: longest - 9].rstrip('-')}-{mark}"
    return f"{name}-{environment}"


def deployment_name(name: str, slot: str) -> str:
    """What the Deployment in a slot is called, of the objects with that name."""
    return name if slot == SLOTS[0] else f"{name}-{slot}"


def yard_label(store_url: str) -> str:
    """The label's value for a store."""
    return hashlib.sha256(store_url.encode()).hexdigest()[:12]


def label_value(text: str) -> str:
    """As near to a text as a label's value may be."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("._-")


def is_name(text: str) -> bool:
    """Whether a Deployment, a Service and a label may be called so."""
    return re.fullmatch(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?", text) is not None


def is_own(document: Mapping[str, Any]) -> bool:
    """Whether an object was made by modelyard."""
    labels = document.get("metadata", {}).get("labels") or {}
    return bool(labels.get(MANAGED_BY) == MANAGER)
