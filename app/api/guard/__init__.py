"""Handle what is common to all requests: ids, access, logs and metrics."""
