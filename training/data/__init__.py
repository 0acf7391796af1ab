"""Labelled pictures: where they come from, how they are divided, and the arrays that they become."""
