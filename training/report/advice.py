"""The report's first section: the diagnosis, each finding with its evidence and the next command to try."""

from html import escape

from training.report.material import Material


def advice(material: Material) -> str:
    cards = "".join(
        f"<div class=card><b>{escape(found['name'])}</b><p>{escape(found['evidence'])}</p>"
        f"<p>{escape(found['advice'])}</p><pre><code>{escape(found['command'])}</code></pre></div>"
        for found in material.metrics["diagnosis"]
    )
    if not cards:
        return "<p>Nothing speaks against this run: see docs/training.md for what is looked for.</p>"
    return f"<div class='cards advice'>{cards}</div>"
