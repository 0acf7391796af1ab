"""The report on the data: how many, what they look like, what preprocessing makes of them, what may be wrong."""

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from training.audit.checks import CHECKS
from training.audit.findings import Finding
from training.audit.page import finding_card
from training.data.dataset import SPLITS, Picture
from training.page import figure, table, thumbnail
from training.report.material import Material
from training.report.mistakes import suspected_labels

_SAMPLES = 24
_PAIRS = 8
_CARDS = 12


def counts(material: Material) -> str:
    splits = [split for split in SPLITS if any(material.counts[split].values())]
    rows = [
        [escape(label), *(f"{material.counts[split][label]:,}" for split in splits)]
        for label in material.dataset.labels
    ]
    rows.append(["<b>all</b>", *(f"<b>{sum(material.counts[split].values()):,}</b>" for split in splits)])
    return f"<p>{escape(material.dataset.origin)}, {len(material.dataset.labels)} classes.</p>" + table(
        ["class", *splits], rows
    )


def samples(material: Material) -> str:
    tensors = material.splits["train"]
    learned = () if tensors is None else tensors.pictures
    shown = _from_every_class(learned, material.dataset.labels, _SAMPLES)
    figures = "".join(figure(thumbnail(picture), escape(picture.label)) for picture in shown)
    return f"<p class=soft>Training pictures, from every class in turn.</p><div class='pictures many'>{figures}</div>"


def preprocessing(material: Material) -> str:
    """Show originals beside the tensors that the network gets."""
    spec, tensors = material.preprocessing, material.shown.tensors
    row_of = {picture.id: row for row, picture in enumerate(tensors.pictures)}
    pairs = "".join(
        f"<div class='card pair'>{figure(thumbnail(picture), escape(picture.id))}"
        f"{figure(tensors.images[row_of[picture.id]], f'{escape(picture.label)}, as it sees it')}</div>"
        for picture in _from_every_class(tensors.pictures, material.dataset.labels, _PAIRS)
    )
    return (
        f"<p class=soft>Left the picture, right what the network gets: {spec.width}×{spec.height}, {spec.colour}, "
        f"{spec.resize}, {spec.polarity.replace('_', ' ')}.</p><div class=cards>{pairs}</div>"
    )


def suspicions(material: Material) -> str:
    by_id = {picture.id: picture for picture in material.dataset.pictures}
    note = (
        "<p class=soft>Labels of held-out pictures that the trained model finds unlikely, and what the audit found "
        "before the training. Look at them: the model may be wrong as well. <code>python -m training audit</code> "
        "looks at all of the data.</p>"
    )
    parts = [note]
    by_check: dict[str, list[Finding]] = defaultdict(list)
    for finding in (*suspected_labels(material.held_out(), material.dataset.labels), *material.audit):
        by_check[finding.check].append(finding)
    for name, findings in by_check.items():
        check = CHECKS[name]
        rest = len(findings) - _CARDS
        parts.append(
            f"<h3><span class='badge {check.severity}'>{check.severity}</span> {name}: {len(findings):,} × "
            f"{escape(check.what)}</h3><div class=cards>"
            + "".join(finding_card(finding, by_id) for finding in findings[:_CARDS])
            + "</div>"
            + (f"<p class=soft>And {rest:,} more.</p>" if rest > 0 else "")
        )
    return "".join(parts) if by_check else "<p>Nothing was found.</p>"


def _from_every_class(pictures: Sequence[Picture], labels: Sequence[str], most: int) -> list[Picture]:
    """Return some of the pictures, one of each class in turn."""
    by_label: dict[str, list[Picture]] = {label: [] for label in labels}
    for picture in pictures:
        by_label[picture.label].append(picture)
    rounds = max(len(each) for each in by_label.values())
    in_turn = (each[turn] for turn in range(rounds) for each in by_label.values() if turn < len(each))
    return [picture for picture, _ in zip(in_turn, range(most), strict=False)]
