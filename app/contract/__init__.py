"""What training and serving agree on: preprocessing, the bundle's layout, and the store that holds bundles.

Importing it loads neither FastAPI nor TensorFlow.
"""
