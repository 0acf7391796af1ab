"""TensorFlow and Keras for the modules that are about them: `from training.tensorflow import keras, tf`.

The first import of either must be the one in `app.engines.tensorflow`, which sets the log level before the C++ runtime
reads it, and reports in one sentence if TensorFlow is not installed. Importing both from here ensures that, in whatever
order modules are loaded.
"""

from app.engines.tensorflow import import_tensorflow

import_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

__all__ = ["keras", "tf"]
