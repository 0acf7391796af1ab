"""Other protocols than the service's own: a package each, with its questions and its routes."""
