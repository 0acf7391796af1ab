"""What a person wants to know of a finished run: what it costs, what it stands, where it errs, on one page."""
