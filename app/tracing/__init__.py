"""Traces of requests: `trace` records them, `export` sends them to an OpenTelemetry collector."""
