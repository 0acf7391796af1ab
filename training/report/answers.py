"""The report on the answers: scores, which classes are taken for which, and the surest mistakes as pictures."""

from html import escape

from training.data.dataset import SPLITS
from training.evaluation.interval import wilson
from training.page import figure, table, thumbnail
from training.report.material import Material
from training.report.mistakes import worst_mistakes

_MISTAKES = 24
_WIDEST_MATRIX = 30
_CONFUSED_PAIRS = 30


def scores(material: Material) -> str:
    rows = []
    for split in SPLITS:
        found = material.metrics[split]
        if found:
            low, high = wilson(round(found["accuracy"] * found["pictures"]), found["pictures"])
            rows.append(
                [
                    split,
                    f"{found['pictures']:,}",
                    f"{found['accuracy']:.2%}",
                    f"{low:.2%} to {high:.2%}",
                    f"{found['macro_f1']:.2%}",
                    f"{found['worst_recall']:.2%}",
                    f"{found['loss']:.4f}",
                ]
            )
    head = ["pictures", "number", "accuracy", "95 % interval", "macro F1", "worst recall", "loss"]
    return table(head, rows)


def by_class(material: Material) -> str:
    def shown(value: float | None) -> str:
        return "never" if value is None else f"<span class=bar style='--v:{value:.4f}'>{value:.2%}</span>"

    rows = [
        [escape(label), shown(row["precision"]), shown(row["recall"]), f"{row['pictures']:,}"]
        for label, row in material.metrics[material.shown.split]["by_class"].items()
    ]
    return table(["class", "precision", "recall", "pictures"], rows)


def confusion(material: Material) -> str:
    counts = material.metrics[material.shown.split]["confusion"]
    labels = material.dataset.labels
    if len(labels) > _WIDEST_MATRIX:
        pairs = sorted(
            ((counts[row][column], row, column) for row in range(len(labels)) for column in range(len(labels))
             if row != column and counts[row][column]),
            reverse=True,
        )  # fmt: skip
        rows = [[escape(labels[row]), escape(labels[column]), f"{n:,}"] for n, row, column in pairs[:_CONFUSED_PAIRS]]
        return "<p class=soft>The pairs most often confused.</p>" + table(["is", "taken for", "pictures"], rows)
    body = ""
    for label, row in zip(labels, counts, strict=True):
        total = sum(row) or 1
        cells = "".join(
            f"<td class='{'right' if labels[column] == label else 'wrong'}' style='--v:{count / total:.4f}'>"
            f"{f'{count:,}' if count else ''}</td>"
            for column, count in enumerate(row)
        )
        body += f"<tr><th scope=row>{escape(label)}</th>{cells}</tr>"
    head = "".join(f"<th scope=col>{escape(label)}</th>" for label in labels)
    return (
        "<p class=soft>A row for each true class, a column for what it was taken for.</p>"
        f"<div class=wide><table class=matrix><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"
        "</div>"
    )


def mistakes(material: Material) -> str:
    held, labels = material.shown, material.dataset.labels
    worst = worst_mistakes(held.probabilities, held.tensors.targets, labels, most=_MISTAKES)
    if not worst:
        return f"<p>None of the {len(held.tensors.targets):,} {held.split} pictures.</p>"
    scored = material.metrics[held.split]
    wrong = round(scored["pictures"] * (1 - scored["accuracy"]))
    figures = []
    for mistake in worst:
        picture = held.tensors.pictures[mistake.row]
        figures.append(
            figure(
                thumbnail(picture),
                f"<b>{escape(mistake.predicted)}</b> {mistake.probability:.1%}, is <b>{escape(picture.label)}</b> "
                f"{mistake.of_own_label:.1%}<br><span class=soft>{escape(picture.id)}</span>",
            )
        )
    return (
        f"<p class=soft>{wrong:,} of {scored['pictures']:,} {held.split} pictures are wrong; the surest first.</p>"
        f"<div class='pictures many'>{''.join(figures)}</div>"
    )
