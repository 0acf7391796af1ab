"""The audit: find what is wrong with labelled pictures before a network is trained on them."""
