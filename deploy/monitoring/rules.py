"""Prometheus's recording and alerting rules.

The objectives are alerted on by burn rate over several windows, as chapter 5 of Google's Site Reliability Workbook
recommends: a page if 2 % of a month's budget is gone in an hour or 5 % in six, a ticket if 10 % is gone in one day or
in three. The short window, a twelfth of the long one, ends the alert soon after the cause.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from deploy.monitoring.series import (
    CORRECTIONS,
    DROPPED,
    MODEL_INFO,
    MODEL_LOADS,
    REQUESTS,
    STAGE_SECONDS,
    TOP_PROBABILITY,
    VERSION_PICTURES,
    WORKER_STARTS,
    WORKERS_READY,
)

JOB = "imageclass"
"""The job under which Prometheus scrapes the service."""
QUESTIONS = ".*(/predict|/predict/batch|:predict|:classify|/infer|/ModelInfer)"
"""Routes that classify pictures, as a regular expression of Prometheus: they alone count for the objectives."""
AVAILABILITY = 0.999
QUICK = 0.99
QUICK_S = 0.5

Severity = Literal["page", "ticket"]
_FAILED = '=~"5.."'
_IN_VAIN = '=~"refused|expired"'
_NOT_LIVE = '!="live"'
_LONG_TO_SHORT = {"1h": "5m", "6h": "30m", "1d": "2h", "3d": "6h"}
_BURNS: tuple[tuple[float, str, Severity], ...] = (
    (14.4, "1h", "page"),
    (6, "6h", "page"),
    (3, "1d", "ticket"),
    (1, "3d", "ticket"),
)
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True)
class Alert:
    """One alerting rule. `summary` says what is wrong, `action` what to do."""

    name: str
    expr: str
    severity: Severity
    summary: str
    action: str
    lasting: str = "0m"
    window: str | None = None
    """The long window of a burn rate."""


def failed_ratio(window: str) -> str:
    """Return the record of the share of questions that the service failed to answer."""
    return f"job:imageclass_failed:ratio_rate{window}"


def slow_ratio(window: str) -> str:
    """Return the record of the share of requests that were answered late."""
    return f"job:imageclass_slow:ratio_rate{window}"


def recordings() -> dict[str, str]:
    """Return the query of each recorded series."""
    found = {}
    asked = {"route": f'=~"{QUESTIONS}"'}
    for window in WINDOWS:
        every = f"sum by (job) (rate({REQUESTS.total(**asked)}[{window}]))"
        failed = f"sum by (job) (rate({REQUESTS.total(**asked, status=_FAILED)}[{window}]))"
        found[failed_ratio(window)] = f"({failed} or 0 * {every}) / {every}"
        total = {"stage": '="total"', "model": '!=""'}
        quick = f"sum by (job) (rate({STAGE_SECONDS.up_to(QUICK_S, **total)}[{window}]))"
        found[slow_ratio(window)] = f"1 - {quick} / sum by (job) (rate({STAGE_SECONDS.count(**total)}[{window}]))"
    for window in ("1h", "7d"):
        found[f"job_model:imageclass_top_probability:mean{window}"] = (
            f"sum by (job, model) (rate({TOP_PROBABILITY.sum()}[{window}]))"
            f" / sum by (job, model) (rate({TOP_PROBABILITY.count()}[{window}]))"
        )
    return found


def alerts() -> list[Alert]:
    found = [
        *_burns("ImageclassErrorBudgetBurns", failed_ratio, AVAILABILITY, "questions fail with 5xx"),
        *_burns("ImageclassLatencyBudgetBurns", slow_ratio, QUICK, f"questions take more than {QUICK_S} s"),
    ]
    refused = f"sum by (job) (rate({DROPPED.total(reason=_IN_VAIN)}[5m]))"
    found += [
        Alert(
            "ImageclassDown",
            f'up{{job="{JOB}"}} == 0 or absent(up{{job="{JOB}"}})',
            "page",
            "Prometheus cannot scrape the service.",
            "See whether its processes run, and whether the address and IMAGECLASS_METRICS_ACCESS let Prometheus in.",
            "5m",
        ),
        Alert(
            "ImageclassNotReady",
            f"{WORKERS_READY.value()} == 0",
            "page",
            "{{ $labels.instance }} has no worker that takes requests.",
            "Its log says why none starts; /health names the models that were refused.",
            "2m",
        ),
        Alert(
            "ImageclassWorkersMissing",
            f"{WORKERS_READY.value()} > 0 < max_over_time({WORKERS_READY.value()}[1h])",
            "ticket",
            "{{ $labels.instance }} has had fewer workers ready than before for 10 minutes.",
            "Its log says why a worker ended or does not start.",
            "10m",
        ),
        Alert(
            "ImageclassWorkersReplaced",
            f"increase({WORKER_STARTS.total()}[1h]) > 2 * max_over_time({WORKERS_READY.value()}[1h])",
            "ticket",
            "{{ $labels.instance }} replaces its workers again and again.",
            "Its log says why each ended: memory, a crash, or an event loop that hung.",
        ),
        Alert(
            "ImageclassOverloaded",
            f"{refused} / ({refused} + sum by (job) (rate({VERSION_PICTURES.total()}[5m]))) > 0.05",
            "ticket",
            "{{ $value | humanizePercentage }} of the pictures have been refused or came too late for 10 minutes.",
            "Add replicas or workers, or let clients send fewer at once.",
            "10m",
        ),
        Alert(
            "ImageclassVersionRefused",
            _new("job, model, version, outcome", MODEL_LOADS.total(outcome=_NOT_LIVE)),
            "ticket",
            "Version {{ $labels.version }} of {{ $labels.model }} was refused: {{ $labels.outcome }}.",
            "The version before it goes on. The log and /health have the reason.",
        ),
        Alert(
            "ImageclassVersionsDiffer",
            f"count by (job, model) (count by (job, model, version) ({MODEL_INFO.value()} == 1)) > 1",
            "ticket",
            "{{ $labels.model }} has been served in several versions for 30 minutes.",
            "Unless that is a canary: see which replica does not follow its store.",
            "30m",
        ),
        Alert(
            "ImageclassConfidenceFell",
            "job_model:imageclass_top_probability:mean1h < job_model:imageclass_top_probability:mean7d - 0.1"
            f" and sum by (job, model) (increase({TOP_PROBABILITY.count()}[1h])) > 100",
            "ticket",
            "{{ $labels.model }} is less sure of its answers than last week.",
            "Look at pictures of the last hour: they may be of another kind, or come from a changed camera or client.",
            "30m",
        ),
        Alert(
            "ImageclassPlacesLeaked",
            _new("job", CORRECTIONS.total()),
            "ticket",
            "A request that had ended still held a place.",
            "Report a defect, with the log's line 'places were not released'.",
        ),
    ]
    return found


def rule_groups() -> dict[str, Any]:
    """Return Prometheus's rule file."""
    return {
        "groups": [
            {
                "name": "imageclass-recordings",
                "rules": [{"record": name, "expr": expr} for name, expr in recordings().items()],
            },
            {
                "name": "imageclass-alerts",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.expr,
                        "for": alert.lasting,
                        "labels": {
                            "severity": alert.severity,
                            **({"window": alert.window} if alert.window is not None else {}),
                        },
                        "annotations": {"summary": alert.summary, "description": alert.action},
                    }
                    for alert in alerts()
                ],
            },
        ]
    }


def _burns(name: str, ratio: Callable[[str], str], objective: float, what: str) -> list[Alert]:
    budget = round(1 - objective, 6)
    return [
        Alert(
            name,
            f"{ratio(long)} > {factor} * {budget} and {ratio(_LONG_TO_SHORT[long])} > {factor} * {budget}",
            severity,
            f"{{{{ $value | humanizePercentage }}}} of the {what}; {budget:.1%} are allowed for.",
            f"The objective of 30 days is spent {factor} times as fast as it may be, over {long}. "
            "The dashboards 'overview' and 'stages' show since when and for whom.",
            window=long,
        )
        for factor, long, severity in _BURNS
    ]


def _new(by: str, total: str) -> str:
    """Return what has grown within an hour. `increase` would not see a series whose first value is 1."""
    now, before = (f"sum by ({by}) ({total}{offset})" for offset in ("", " offset 1h"))
    return f"{now} - {before} > 0 or ({now} unless {before}) > 0"
