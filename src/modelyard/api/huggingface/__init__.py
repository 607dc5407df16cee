"""The repository in the words of the Hugging Face Hub, read-only, so that its clients work unchanged."""
