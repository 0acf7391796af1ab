"""Find classes that have too few pictures. It looks at labels alone."""

from collections import Counter
from collections.abc import Iterator, Sequence

from app.system.wording import count_of
from training.audit.checks import Thresholds
from training.audit.findings import Finding
from training.data.dataset import Picture


def find_small_classes(pictures: Sequence[Picture], thresholds: Thresholds) -> Iterator[Finding]:
    """Find classes with few usable pictures, compared with the largest class or in absolute numbers."""
    counts = Counter(picture.label for picture in pictures if picture.split in (None, "train"))
    if not counts:
        return
    largest, most = counts.most_common(1)[0]
    for label, count in sorted(counts.items()):
        have = f"Class '{label}' has {count_of(count, 'picture')} to learn from"
        if most / count > thresholds["imbalance"]:
            sentence = f"{have}, {most / count:.0f} times fewer than '{largest}' with {most:,}."
            yield Finding("imbalance", (), most / count, sentence)
        if count < thresholds["few"]:
            yield Finding("few", (), thresholds["few"] - count, f"{have}.")
