"""The tutorial's network, in plain Keras and compiled as in its script."""

from training.tensorflow import keras


def tutorial_network(shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Return the network, untrained: values of 0 to 1 (N, H, W, C) → probabilities (N, classes)."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return network
