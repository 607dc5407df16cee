"""From staging through validation to production: plan, reconciler, targets, and the manager with its verbs."""

from modelyard.deployment.manager import DeploymentManager, LocalStatus, Status
from modelyard.deployment.suite import Suite, read_suite
from modelyard.deployment.validation import Check, Report

__all__ = ["Check", "DeploymentManager", "LocalStatus", "Report", "Status", "Suite", "read_suite"]
