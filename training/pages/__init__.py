"""Self-contained pages for people: the templates' environment, the base template, and pictures inside a page."""
