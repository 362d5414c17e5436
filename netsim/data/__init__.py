"""Facts of the Kubernetes API that are data: read lazily, never at import."""
