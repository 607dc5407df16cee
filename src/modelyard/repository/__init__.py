"""Models and their versions: manifests, tags, lineage, environments' journals, evidence."""

from modelyard.repository.environments import Deployment, DeploymentSpec, Environment, Pin
from modelyard.repository.evidence import Evidence, EvidenceJournal
from modelyard.repository.manifest import Inspection, ModelInfo, ModelVersion
from modelyard.repository.repository import ModelRepository

__all__ = [
    "Deployment",
    "DeploymentSpec",
    "Environment",
    "Evidence",
    "EvidenceJournal",
    "Inspection",
    "ModelInfo",
    "ModelRepository",
    "ModelVersion",
    "Pin",
]
