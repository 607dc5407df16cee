"""HTTP beside the gateway: what tools and people ask of the repository. Knows nothing of how models are served."""
