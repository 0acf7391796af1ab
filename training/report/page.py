"""Write a run's report as one self-contained HTML page with its sections in order.

Each section has a function that prepares its text and numbers, and a template of its name.
"""

from collections.abc import Callable

from app.system.wording import count_of
from training.pages.rendering import render
from training.report import answers, course, data, trials
from training.report.advice import advice
from training.report.calibration import calibration
from training.report.material import Content, Material

_SECTIONS: tuple[tuple[str, str, Callable[[Material], Content | None]], ...] = (
    ("advice", "What to do next", advice),
    ("data", "The data", data.counts),
    ("samples", "What it learned from", data.samples),
    ("preprocessing", "What the network sees", data.preprocessing),
    ("curves", "The course of the training", course.curves),
    ("scores", "How well it does", answers.scores),
    ("classes", "By class", answers.by_class),
    ("confusion", "What is taken for what", answers.confusion),
    ("mistakes", "The worst mistakes", answers.mistakes),
    ("calibration", "What its probabilities mean", calibration),
    ("robustness", "What it stands", trials.robustness),
    ("cost", "What it costs", trials.cost),
    ("suspicions", "What may be wrong with the data", data.suspicions),
    ("repeat", "How to repeat it", course.repeat),
)


def report_page(material: Material) -> str:
    """Return the HTML of report.html."""
    sections = [
        {"name": name, "title": title, "content": content}
        for name, title, prepare in _SECTIONS
        if (content := prepare(material)) is not None
    ]
    return render(
        "report/templates/report.html.j2",
        title=f"{material.name}, version {material.version}",
        headline=_headline(material),
        sections=sections,
    )


def _headline(material: Material) -> str:
    scores = material.metrics[material.shown.split]
    return (
        f"{scores['accuracy']:.2%} right of {count_of(scores['pictures'], f'{material.shown.split} picture')}; "
        f"{material.metrics['parameters']:,} parameters, {material.metrics['fit_seconds']:.0f} s of training on "
        f"{material.dataset.origin}."
    )
