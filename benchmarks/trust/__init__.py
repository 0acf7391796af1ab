"""Measure what answers say of themselves: whether, and why, to trust them."""
