"""Name every check of the audit, with its severity, its threshold and the reason for it. It looks at no picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from training.errors import OptionError

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look for. `threshold` is None if the check has none; `reason` justifies the threshold."""

    name: str
    severity: Severity
    what: str
    threshold: float | None
    unit: str
    reason: str


_CHECKS = (
    Check(
        "corrupt", "error", "files that are empty, cannot be read, are no picture or cannot be decoded whole", None, "",
        "Training and the service reject them, by the same decoder.",
    ),
    Check(
        "layout", "error", "classes without pictures, misplaced folders, and all else at which fit stops", None, "",
        "The audit continues with the pictures that it finds.",
    ),
    Check(
        "leakage", "error", "the same picture, or one group, in two of the splits that the data gives", None, "",
        "A test on what was learned measures memory. Decoded pixels are compared, so a copy in another format counts.",
    ),
    Check(
        "near-leakage", "warning", "near duplicates in two of the splits that the data gives", None, "",
        "A warning, because published splits have some and a few in thousands hardly move a score; "
        "fit keeps them together in the splits that it makes itself.",
    ),
    Check(
        "conflict", "error", "the same picture, or near duplicates, in two classes", None, "",
        "One of the two labels is wrong, and the network is asked to learn both.",
    ),
    Check(
        "duplicate", "warning", "pictures whose decoded pixels are equal", None, "",
        "They count twice. Pixels are compared after decoding: another name, format or compression level is no "
        "difference.",
    ),
    Check(
        "near-duplicate", "warning", "one picture rescaled, recompressed, brightened, shifted, cut, turned or mirrored",
        0.982, "correlation",
        "Laid over each other, copies planted in sign_digits correlate at 0.982 to 1, its closest different pictures "
        "at 0.983 at most. Drawings on an even ground have to be twice as alike (0.99), and every pair has to differ "
        "by less than a third of what is usual around it: two plain strokes are alike without being copies. For "
        "pictures of 128 pixels a side and more, this only proposes pairs, with some slack. Their details in colour "
        "decide: they may differ four times as much (0.928), and by at most a twelfth of the difference between "
        "other pictures.",
    ),
    Check(
        "wrong-label", "warning", "labels that a model which has not seen the picture finds unlikely", 1.0,
        "strictness",
        "At 1 a picture is named if the model is at least as sure of another class as it is, on average, of that "
        "class's own pictures. Of photos, another class has to be six times as likely as the picture's own, or less "
        "if the model is seldom that sure. A higher threshold names fewer.",
    ),
    Check(
        "imbalance", "warning", "classes with far fewer pictures than the largest", 10.0, "times fewer",
        "Beyond about ten times, a network loses little accuracy if it never predicts the small class.",
    ),
    Check(
        "few", "warning", "classes with very few pictures", 10.0, "pictures",
        "Held-out figures of such a class rest on one or two pictures.",
    ),
    Check(
        "blank", "warning", "pictures that show one level only, or nearly", 12.0, "grey levels",
        "The range of levels, without half a per cent at each end: JPEG noise on an even ground stays below.",
    ),
    Check(
        "dark", "warning", "pictures with nothing bright in them", 60.0, "grey levels",
        "The level that only a hundredth of the pixels exceeds: light strokes on black are not dark.",
    ),
    Check(
        "bright", "warning", "pictures with nothing dark in them", 200.0, "grey levels",
        "The level below which only a hundredth of the pixels lies: dark strokes on white are not bright.",
    ),
    Check(
        "blurred", "warning", "pictures without edges, compared with the others", 0.3, "of the median sharpness",
        "Sharpness is edge strength over contrast. It depends on what is shown, so it is measured against the data's "
        "own median: a lens out of focus loses two thirds and more.",
    ),
    Check(
        "odd-size", "warning", "pictures much larger or smaller than the others", 4.0, "times the median side",
        "Phone originals among thumbnails, and thumbnails among photos, exceed it; a mix of cameras does not.",
    ),
    Check(
        "odd-ratio", "warning", "pictures much wider or taller than the others", 2.5, "times the median ratio",
        "A portrait among 4:3 landscapes has 1.8; panoramas, strips and screenshots of pages exceed it.",
    ),
    Check(
        "left-out", "warning", "files that are no pictures of an accepted format, hidden files and folders, and "
        "links that lead nowhere", None, "",
        "fit does not train on them. A file that is named like a picture and is not one is corrupt instead.",
    ),
    Check(
        "too-large", "warning", "pictures that the service rejects for their size", None, "",
        "The network learns from them, but the service answers such a picture with 413. Raise IMAGECLASS_MAX_PIXELS "
        "or IMAGECLASS_MAX_UPLOAD_BYTES of the service, or shrink pictures before sending them.",
    ),
    Check(
        "mixed-modes", "info", "grey, coloured, 16-bit or transparent pictures side by side", None, "",
        "The network may learn the format instead of what is shown.",
    ),
    Check(
        "orientation", "info", "pictures that their EXIF orientation turns", None, "",
        "Training and serving turn them upright; other tools may show them rotated.",
    ),
    Check(
        "misnamed", "info", "files whose name says another format than their bytes", None, "",
        "Training uses the bytes; other tools may not open them.",
    ),
)  # fmt: skip

CHECKS: dict[str, Check] = {check.name: check for check in _CHECKS}


class Thresholds:
    """The threshold of every check that has one: the default, or the value given on the command line."""

    def __init__(self, changes: Mapping[str, float] | None = None) -> None:
        self._values = {check.name: check.threshold for check in _CHECKS if check.threshold is not None}
        self._values.update(changes or {})

    def __getitem__(self, check: str) -> float:
        return self._values[check]

    def as_dict(self) -> dict[str, float]:
        return dict(self._values)


def parse_thresholds(words: Sequence[str]) -> Thresholds:
    """Return thresholds with the changes of words like "blurred=0.2". Raises OptionError."""
    changes: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in CHECKS or CHECKS[name].threshold is None:
            known = ", ".join(check.name for check in _CHECKS if check.threshold is not None)
            raise OptionError(f"--threshold {word}: '{name}' has no threshold. Checks with one: {known}.")
        try:
            value = float(text)
        except ValueError:
            raise OptionError(f"--threshold {word} is not NAME=NUMBER, such as blurred=0.2.") from None
        if not 0 <= value < float("inf"):
            raise OptionError(f"--threshold {word}: give a number of at least 0.")
        changes[name] = value
    return Thresholds(changes)


def parse_checks(option: str, text: str) -> frozenset[str]:
    """Return the check names of a comma-separated list; a severity stands for all of its checks. Raises OptionError."""
    names: set[str] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word in SEVERITIES:
            names |= {check.name for check in _CHECKS if check.severity == word}
        elif word in CHECKS:
            names.add(word)
        else:
            raise OptionError(f"{option} {text}: there is no check '{word}'. There are: {', '.join(CHECKS)}.")
    return frozenset(names)
