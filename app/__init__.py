"""The service: a FastAPI application that answers pictures with class probabilities."""
