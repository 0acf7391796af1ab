"""Labelled pictures: their sources, their splits, and the arrays that they become."""
