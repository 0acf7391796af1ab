"""Calibrate a network by a temperature, and measure how far its confidence is from its accuracy."""
