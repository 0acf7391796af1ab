"""TensorFlow and Keras for the modules that are about them: `from training.tensorflow import keras, tf`.

The first import of either must be the quiet one of `app.engines.tensorflow`, which sets the log level before the C++
runtime reads it, and says in a sentence if TensorFlow is not installed. Importing both from here makes it so, in
whatever order modules are loaded.
"""

from app.engines.tensorflow import import_tensorflow

import_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

__all__ = ["keras", "tf"]
