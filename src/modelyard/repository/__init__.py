"""Models and their versions: manifests, tags, lineage, environments' journals, evidence."""

from modelyard.repository.environments import Deployment, DeploymentSpec, Environment, Pin
from modelyard.repository.evidence import Evidence, EvidenceJournal
from modelyard.repository.manifest import Inspection, ModelInfo, ModelVersion
from modelyard.repository.repository import ModelRepository
from modelyard.repository.strategies import (
    Analysis,
    CanaryStep,
    CustomMetric,
    Expected,
    Pause,
    Progress,
    Strategy,
)

__all__ = [
    "Analysis",
    "CanaryStep",
    "CustomMetric",
    "Deployment",
    "DeploymentSpec",
    "Environment",
    "Evidence",
    "EvidenceJournal",
    "Expected",
    "Inspection",
    "ModelInfo",
    "ModelRepository",
    "ModelVersion",
    "Pause",
    "Pin",
    "Progress",
    "Strategy",
]
