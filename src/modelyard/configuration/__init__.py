"""Central configuration: one journal for each section, so every change has an author, a time and a way back."""

from modelyard.configuration.changes import Change
from modelyard.configuration.layers import Found
from modelyard.configuration.manager import ConfigurationManager
from modelyard.configuration.watching import Watch

__all__ = ["Change", "ConfigurationManager", "Found", "Watch"]
