"""Try several presets and learning rates for a limited time each, and publish the best."""
