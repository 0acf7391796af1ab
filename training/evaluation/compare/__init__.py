"""Compare two bundles on the same labelled pictures, with a test of significance."""
