from pathlib import Path
from typing import Any

from training.model.preset import Preset
from training.options import FitOptions


def fit_options(store: Path, preset: Preset, **given: Any) -> FitOptions:
    """Return the options of a fit on the digits of scikit-learn into `store`, with others where they are given."""
    return FitOptions(
        **{
            "data": "digits",
            "name": "d",
            "preset": preset,
            "model_store": store,
            "seed": 0,
            "test": 0.2,
            "size": None,
            "colour": None,
            "on_bad_image": "fail",
            "about": None,
            **given,
        }
    )
