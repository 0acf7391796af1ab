"""Networks as data, and the Keras networks that they become."""
