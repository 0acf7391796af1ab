"""Honest probabilities: a temperature inside the network, and figures on how far its confidence can be trusted."""
