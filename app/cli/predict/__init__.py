"""`python -m app predict`: pictures from files, folders and pipes, through a service or a model loaded here."""
