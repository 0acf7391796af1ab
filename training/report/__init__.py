"""Report on a finished run: cost, robustness and mistakes on one page."""
