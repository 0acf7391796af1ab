"""Draw what `trust` and `explanations` measure, for the docs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.answer_options import SetMethod
from app.contract.heat_map import canvas, overlay
from app.contract.preprocessing import Box, Image, PreprocessingSpec, prepare
from app.contract.trust import Trust

Floats = NDArray[np.float64]

_FALSE_ALARMS = np.concatenate([np.linspace(0, 0.01, 11), np.geomspace(0.011, 1, 60)])
_ERROR_RATES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2)
_SIDE = 144


def draw_roc(familiar: Floats, strange: Mapping[str, Floats], file: Path) -> None:
    """Draw which share of strange pictures is called unfamiliar at each share of familiar ones that is, as SVG.

    Both are overall p-values (N,).
    """
    axes, save = _plot("share of familiar pictures called unfamiliar", "share of strange pictures called unfamiliar")
    thresholds = np.quantile(familiar, _FALSE_ALARMS)
    for name, p_values in strange.items():
        found = (p_values[:, np.newaxis] <= thresholds).mean(axis=0)
        axes.plot(_FALSE_ALARMS, found, label=name, linewidth=1.2)
    axes.set_xscale("symlog", linthresh=0.01, linscale=0.4)
    axes.set_xticks([0, 0.01, 0.1, 1], ["0", "1 %", "10 %", "100 %"])
    save(file)


def draw_coverage(trust: Trust, probabilities: NDArray[np.float32], targets: NDArray[np.int64], file: Path) -> None:
    """Draw how often sets of labels miss the truth, against how often they may, as SVG."""
    axes, save = _plot("share of pictures whose label the set may miss", "share of pictures whose label it misses")
    rates = [rate for rate in _ERROR_RATES if rate >= trust.least_rate]
    axes.plot(rates, rates, color="grey", linewidth=0.8, label="as asked for")
    methods: tuple[SetMethod, ...] = ("lac", "aps")
    for method in methods:
        missed = [
            np.mean(
                [
                    target not in trust.prediction_set(row, rate, method)
                    for row, target in zip(probabilities, targets, strict=True)
                ]
            )
            for rate in rates
        ]
        axes.plot(rates, missed, marker=".", linewidth=1.2, label=method.upper())
    save(file)


def draw_maps(rows: Sequence[tuple[Image, Sequence[NDArray[np.float32]]]], file: Path) -> None:
    """Draw pictures (H, W, C), each beside itself under its maps, as JPEG."""
    whole = Box(left=0, top=0, width=1, height=1)
    small = PreprocessingSpec(height=_SIDE, width=_SIDE, colour="rgb")
    lines = []
    for picture, grids in rows:
        shown = canvas(picture)
        drawn = [shown, *(overlay(shown, grid, whole) for grid in grids)]
        lines.append(np.hstack([prepare(each, small) for each in drawn]))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(".jpg", np.vstack(lines)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())


def _plot(across: str, up: str) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "imageclass"  # the same plot gives the same file
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, alpha=0.3)

    def save(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        axes.legend(fontsize="small")
        figure.savefig(file, metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)

    return axes, save
