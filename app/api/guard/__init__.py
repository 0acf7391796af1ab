"""What happens to every request: its id, who may ask, and what is logged and counted."""
