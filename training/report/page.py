"""A run's report as one HTML page that needs nothing else: its sections in the order in which they are read."""

from collections.abc import Callable
from html import escape

from training.page import document
from training.report import answers, course, data, trials
from training.report.advice import advice
from training.report.calibration import calibration
from training.report.material import Material
from training.report.plots import STYLE as PLOTS

_STYLE = """
:root { --first: #2166ac; --second: #c2541b; --right: 46, 125, 80; --wrong: 190, 60, 40; }
@media (prefers-color-scheme: dark) { :root { --first: #7db4ea; --second: #f0a070; } }
nav { display: flex; flex-wrap: wrap; gap: .2rem .9rem; margin: .75rem 0; font-size: .9rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .35rem; } h1 small { font-weight: 400; opacity: .75; }
pre { white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--soft); padding: .6rem .8rem; border-radius: .4rem; font-size: .82rem; }
td.number { white-space: nowrap; } .advice pre { margin: .4rem 0 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem 1.5rem;
  margin-top: .75rem; }
.headline { font-size: 1.05rem; } .pair { display: flex; gap: .6rem; } .advice .card { max-width: 44rem; }
.bar { display: inline-block; min-width: 4.2rem; text-align: right; padding: 0 .3rem; border-radius: .2rem;
  background: linear-gradient(to right, rgba(var(--right), .35) calc(var(--v) * 100%), var(--soft) 0); }
.matrix td, .matrix th { padding: .15rem .45rem; text-align: right; font-variant-numeric: tabular-nums; }
.matrix td { border: 1px solid var(--line); min-width: 1.6rem; }
.matrix td.right { background: rgba(var(--right), calc(var(--v) * .5)); }
.matrix td.wrong { background: rgba(var(--wrong), min(.85, calc(var(--v) * 5))); }
.trials figure, .trials img { width: 84px; } .trials img { height: 84px; }
.many figure, .many img, .many .none { width: 96px; } .many img, .many .none { height: 96px; }
@media (max-width: 40rem) { body { margin: 1rem auto; } td, th { padding-right: .6rem; } .pictures { gap: .4rem; }
  .many figure, .many img, .many .none, .pair figure, .pair img { width: 66px; }
  .many img, .many .none, .pair img { height: 66px; } .pair { padding: .3rem; gap: .3rem; } }
"""

_Section = tuple[str, str, Callable[[Material], str]]
_SECTIONS: tuple[_Section, ...] = (
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
    """Return report.html."""
    drawn = [(name, title, body) for name, title, draw in _SECTIONS if (body := draw(material))]
    contents = "".join(f"<a href='#{name}'>{title}</a>" for name, title, _ in drawn)
    sections = "\n".join(f"<section><h2 id={name}>{title}</h2>{body}</section>" for name, title, body in drawn)
    title = f"{escape(material.name)}, version {material.version}"
    body = f"<h1>{title}</h1>\n<p class=headline>{_headline(material)}</p>\n<nav>{contents}</nav>\n{sections}"
    return document(title, body, style=PLOTS + _STYLE)


def _headline(material: Material) -> str:
    scores = material.metrics[material.shown.split]
    return (
        f"{scores['accuracy']:.2%} of {scores['pictures']:,} {material.shown.split} pictures are right; "
        f"{material.metrics['parameters']:,} parameters, {material.metrics['fit_seconds']:.0f} s of training on "
        f"{escape(material.dataset.origin)}."
    )
