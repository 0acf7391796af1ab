"""Write a Keras network as a SavedModel that every engine reads."""

import errno
import os
from pathlib import Path
from typing import Any

from app.contract.bundle import CLASS_MAPS, FEATURES, Signature, TensorSpec
from training.errors import PublishError
from training.tensorflow import keras, tf


def other_outputs(network: keras.Model) -> tuple[TensorSpec, ...]:
    """Return the outputs of a network besides its probabilities: features, and class maps.

    Features are the input of a last layer that is dense. If they are means of maps, a class map shows the places of the
    evidence for a class (Zhou et al. 2016, arXiv:1512.04150).
    """
    features, maps = _inside(network)
    if features is None:
        return ()
    found = [TensorSpec(name=FEATURES, dtype="float32", shape=tuple(features.shape))]
    if maps is not None:
        shape = (*maps.shape[:-1], network.output_shape[-1])
        found.append(TensorSpec(name=CLASS_MAPS, dtype="float32", shape=shape))
    return tuple(found)


def _inside(network: keras.Model) -> tuple[Any, Any]:
    """Return the input of the last layer, and the maps of which it is the mean; None for each that does not exist."""
    *body, head = network.layers
    if not isinstance(head, keras.layers.Dense):
        return None, None
    features = head.input
    while body and isinstance(body[-1], keras.layers.Dropout):
        body.pop()
    if not body or not isinstance(body[-1], keras.layers.GlobalAveragePooling2D):
        return features, None
    return features, body[-1].input


def save(network: keras.Model, folder: Path, signature: Signature) -> None:
    """Write the SavedModel: `signature.input` in, `signature.outputs` float32 out, batch size free.

    Other outputs than the first are some of `other_outputs`.

    Raises PublishError if TensorFlow cannot write it, or OSError if the disk is full.
    """
    # A copy without the optimizer: its state, twice the size of the weights, would be saved as well.
    inference = type(network).from_config(network.get_config())
    inference.set_weights(network.get_weights())
    specification = tf.TensorSpec(signature.input.shape, signature.input.dtype, name=signature.input.name)

    inside = {FEATURES: None, CLASS_MAPS: None}
    if signature.other_outputs:
        inside = dict(zip(inside, _inside(inference), strict=True))
    asked = {tensor.name: inside[tensor.name] for tensor in signature.other_outputs}
    whole = keras.Model(inference.inputs, {signature.output.name: inference.outputs[0], **asked})

    @tf.function(input_signature=[specification])  # type: ignore[untyped-decorator]
    def serve(image: Any) -> dict[str, Any]:
        answers: dict[str, Any] = whole(image, training=False)
        if CLASS_MAPS in answers:
            kernel, bias = inference.layers[-1].weights
            answers[CLASS_MAPS] = tf.tensordot(answers[CLASS_MAPS], kernel.value, axes=1) + bias.value
        return answers

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
