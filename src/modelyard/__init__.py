"""modelyard: where a team's own AI models are born, checked, served, replaced and taken back."""

__version__ = "0.1.0"
