"""Two bundles on the same labelled pictures, side by side, with a test of whether the difference is real."""
