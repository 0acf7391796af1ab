"""Protocols of other inference servers, one package each."""
