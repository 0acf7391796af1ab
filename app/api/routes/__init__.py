"""The service's own routes, in FastAPI."""
