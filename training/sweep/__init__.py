"""Several presets and learning rates tried for a while each, and the best of them published."""
