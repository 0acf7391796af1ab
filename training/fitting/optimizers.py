"""Make a recipe's Keras optimizer and learning-rate schedule."""

from training.model.preset import Recipe, Schedule
from training.tensorflow import keras

_ADAMW_DECAY = 0.01
_ONE_CYCLE_CLIMB = 0.2
_ONE_CYCLE_START = 1 / 25


def optimizer_of(recipe: Recipe, variables: list[keras.Variable], *, steps: int) -> keras.Optimizer:
    """Return the optimizer for `variables`, whose schedule lasts `steps` steps.

    Weight decay applies to kernels only, not to biases and the scales of normalisation, which have one axis.
    """
    rate = rate_schedule(recipe.schedule, recipe.warm_up, peak=recipe.learning_rate, steps=steps)
    decay = recipe.weight_decay
    if decay is None and recipe.optimizer == "adamw":
        decay = _ADAMW_DECAY
    given = {"learning_rate": rate, "weight_decay": decay or None, "clipnorm": recipe.clip_norm or None}
    match recipe.optimizer:
        case "sgd":
            optimizer = keras.optimizers.SGD(**given)
        case "momentum":
            optimizer = keras.optimizers.SGD(momentum=recipe.momentum, nesterov=True, **given)
        case "rmsprop":
            optimizer = keras.optimizers.RMSprop(**given)
        case "adam":
            optimizer = keras.optimizers.Adam(**given)
        case "adamw":
            optimizer = keras.optimizers.AdamW(**{**given, "weight_decay": decay})
    if decay:
        optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if len(variable.shape) < 2])
    return optimizer


def rate_schedule(
    schedule: Schedule, warm_up: float | None, *, peak: float, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return a constant, or a Keras schedule that rises for the share `warm_up` of the steps first."""
    if warm_up is None:
        warm_up = _ONE_CYCLE_CLIMB if schedule == "one_cycle" else 0.0
    if schedule == "constant" and not warm_up:
        return peak
    climb = round(steps * warm_up)
    start = peak * _ONE_CYCLE_START if schedule == "one_cycle" else 0.0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=start if climb else peak,
        decay_steps=max(1, steps - climb),
        alpha=1.0 if schedule == "constant" else 0.0,  # the share of the peak that it falls to
        warmup_target=peak if climb else None,
        warmup_steps=climb,
    )
