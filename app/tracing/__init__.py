"""Traces of requests: `trace` records them, `otlp` sends them to an OpenTelemetry collector."""
