"""The report's section on the data: counts, examples, preprocessed examples, the audit's findings."""

from collections import defaultdict
from collections.abc import Sequence

from app.contract.picture_files import describe_left_out
from app.system.invocation import command_line
from training.audit.cards import Found
from training.audit.checks import CHECKS
from training.audit.findings import Finding
from training.data.dataset import SPLITS, Picture
from training.pages.images import inline, thumbnail
from training.report.material import Content, Material
from training.report.mistakes import suspected_labels

_SAMPLES = 24
_PAIRS = 8
_CARDS = 12


def counts(material: Material) -> Content:
    splits = [split for split in SPLITS if any(material.counts[split].values())]
    labels = material.dataset.labels
    return {
        "origin": material.dataset.origin,
        "left_out": describe_left_out(material.dataset.left_out),
        "classes": len(labels),
        "head": ["class", *splits],
        "rows": [[label, *(f"{material.counts[split][label]:,}" for split in splits)] for label in labels],
        "total": ["all", *(f"{sum(material.counts[split].values()):,}" for split in splits)],
    }


def samples(material: Material) -> Content:
    tensors = material.splits["train"]
    learned = () if tensors is None else tensors.pictures
    shown = _from_every_class(learned, material.dataset.labels, _SAMPLES)
    return {"pictures": [{"image": thumbnail(picture), "label": picture.label} for picture in shown]}


def preprocessing(material: Material) -> Content:
    """Return originals beside the tensors that the network gets."""
    spec, tensors = material.preprocessing, material.shown.tensors
    row_of = {picture.id: row for row, picture in enumerate(tensors.pictures)}
    return {
        "spec": f"{spec.width}×{spec.height}, {spec.colour}, {spec.resize}, {spec.polarity.replace('_', ' ')}"
        + (", the drawing centred by mass" if spec.framing == "mass" else ""),
        "pictures": [
            {
                "id": picture.id,
                "label": picture.label,
                "image": thumbnail(picture),
                "prepared": inline(tensors.images[row_of[picture.id]]),
            }
            for picture in _from_every_class(tensors.pictures, material.dataset.labels, _PAIRS)
        ],
    }


def suspicions(material: Material) -> Content:
    by_id = {picture.id: picture for picture in material.dataset.pictures}
    by_check: dict[str, list[Finding]] = defaultdict(list)
    for finding in (*suspected_labels(material.held_out(), material.dataset.labels), *material.audit):
        by_check[finding.check].append(finding)
    return {
        "checks": [Found.of(CHECKS[name], each, by_id, most=_CARDS) for name, each in by_check.items()],
        "review": command_line("training", "review", material.dataset.origin, "--name", material.name, here=False),
    }


def _from_every_class(pictures: Sequence[Picture], labels: Sequence[str], most: int) -> list[Picture]:
    """Return some of the pictures, taken from each class in turn."""
    by_label: dict[str, list[Picture]] = {label: [] for label in labels}
    for picture in pictures:
        by_label[picture.label].append(picture)
    rounds = max(len(each) for each in by_label.values())
    in_turn = (each[turn] for turn in range(rounds) for each in by_label.values() if turn < len(each))
    return [picture for picture, _ in zip(in_turn, range(most), strict=False)]
