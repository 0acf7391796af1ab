"""A bundle's SavedModel, run by TensorFlow or OpenVINO and proven on its golden pictures.

Engines know nothing of pictures, queues or HTTP: they turn uint8 batches into probabilities.
"""
