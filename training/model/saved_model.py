"""Write a Keras network as a SavedModel that every engine reads."""

import errno
import os
from pathlib import Path
from typing import Any

from app.contract.bundle import Signature
from training.errors import PublishError
from training.tensorflow import keras, tf


def save(network: keras.Model, folder: Path, signature: Signature) -> None:
    """Write the SavedModel: `signature.input` in, `signature.output` float32 out, batch size free.

    Raises PublishError if TensorFlow cannot write it, or OSError if the disk is full.
    """
    # A copy without the optimizer, whose state, twice the size of the weights, would be saved too.
    inference = type(network).from_config(network.get_config())
    inference.set_weights(network.get_weights())
    specification = tf.TensorSpec(signature.input.shape, signature.input.dtype, name=signature.input.name)

    @tf.function(input_signature=[specification])  # type: ignore[untyped-decorator]
    def serve(image: Any) -> dict[str, Any]:
        return {signature.output.name: inference(image, training=False)}

    module = tf.Module()
    module.serve = serve
    # The variables themselves instead of the network: Keras wraps the network, and OpenVINO does not find the variables
    # of a network within a network.
    module.weights = [variable.value for variable in inference.variables]
    try:
        tf.saved_model.save(module, str(folder), signatures={signature.name: serve})
    except tf.errors.OpError as exc:
        if os.strerror(errno.ENOSPC) in exc.message:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from exc
        raise PublishError(f"TensorFlow could not write the SavedModel: {exc.message}. Nothing was published.") from exc
    assets = folder / "assets"
    if assets.is_dir() and not any(assets.iterdir()):
        assets.rmdir()  # git and object stores drop empty folders
