"""MLflow, through its REST API alone: addresses, the HTTP client, artifacts, and what of it becomes metadata."""
