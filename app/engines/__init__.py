"""A bundle's SavedModel, run by TensorFlow or OpenVINO and proven on its golden pictures.

Engines know nothing of pictures, queues or HTTP: uint8 batches in, probabilities out.
"""
