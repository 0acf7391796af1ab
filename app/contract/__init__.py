"""The contract between training and serving: preprocessing, the bundle's layout, and the model store.

Importing it loads neither FastAPI nor TensorFlow.
"""
