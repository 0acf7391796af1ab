"""Processes of the service: the supervisor, its workers, and the port that they share."""
