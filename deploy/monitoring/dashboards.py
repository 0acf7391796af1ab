"""What the dashboards show: titles, queries and units. `grafana` writes them in Grafana's form."""

from dataclasses import dataclass
from typing import Literal

from app.api.routes.metrics import BUILD_INFO
from deploy.monitoring.rules import AVAILABILITY, QUESTIONS, QUICK, QUICK_S, failed_ratio, slow_ratio
from deploy.monitoring.series import (
    BATCH_SIZE,
    CONNECTIONS,
    CORRECTIONS,
    DROPPED,
    ERRORS,
    LAST_INFERENCE,
    MODEL_INFO,
    MODEL_LOADS,
    PENDING_BYTES,
    PENDING_PICTURES,
    PREDICTIONS,
    REQUESTS,
    RESIDENT_BYTES,
    STAGE_SECONDS,
    TOP_PROBABILITY,
    VERSION_BATCH_SECONDS,
    VERSION_PICTURES,
    VERSION_SECONDS,
    WORKER_STARTS,
    WORKERS_READY,
)

Unit = Literal["short", "reqps", "s", "percentunit", "bytes", "dateTimeFromNow"]
HERE = {"job": '=~"$job"', "instance": '=~"$instance"'}
OF_MODEL = {**HERE, "model": '=~"$model"'}
_RATE = "[$__rate_interval]"
_NOT_LIVE = '!="live"'


@dataclass(frozen=True)
class Panel:
    """A chart over time, or the newest value if `is_stat`. `queries` has a query for each legend."""

    title: str
    help: str
    queries: dict[str, str]
    unit: Unit = "short"
    is_stat: bool = False
    stacked: bool = False


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    panels: tuple[Panel, ...]


def _rate(by: str, selector: str) -> str:
    return f"sum by ({by}) (rate({selector}{_RATE}))"


def _ratio(by: str, part: str, whole: str) -> str:
    return f"{_rate(by, part)} / {_rate(by, whole)}"


def _quantiles(selector: str) -> dict[str, str]:
    return {
        name: f"histogram_quantile({quantile}, {_rate('le', selector)})"
        for name, quantile in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    }


def _budget_left(ratio: str, objective: float) -> str:
    return f'1 - {ratio}{{job=~"$job"}} / {round(1 - objective, 6)}'


_TOTAL = STAGE_SECONDS.buckets(**OF_MODEL, stage='="total"')
_ASKED = REQUESTS.total(**HERE, route=f'=~"{QUESTIONS}"')

OVERVIEW = Dashboard(
    "overview",
    "imageclass: overview and objectives",
    (
        Panel("Questions a second", REQUESTS.family.help, {"questions": _rate("job", _ASKED)}, "reqps", is_stat=True),
        Panel(
            "Failed, last hour",
            f"Share of questions answered with 5xx; the objective is {1 - AVAILABILITY:.1%} over 30 days.",
            {"failed": f'{failed_ratio("1h")}{{job=~"$job"}}'},
            "percentunit",
            is_stat=True,
        ),
        Panel(
            "Slow, last hour",
            f"Share of questions that took more than {QUICK_S} s; the objective is {1 - QUICK:.0%} over 30 days.",
            {"slow": f'{slow_ratio("1h")}{{job=~"$job"}}'},
            "percentunit",
            is_stat=True,
        ),
        Panel(
            "Workers ready",
            WORKERS_READY.family.help,
            {"ready": f"sum by (job) ({WORKERS_READY.value(**HERE)})"},
            is_stat=True,
        ),
        Panel(
            "Error budget left, at the pace of the window",
            "1 is untouched; at 0 the whole budget would be spent if it went on so, below it more.",
            {
                "failures, 6 h": _budget_left(failed_ratio("6h"), AVAILABILITY),
                "failures, 3 d": _budget_left(failed_ratio("3d"), AVAILABILITY),
                "slowness, 6 h": _budget_left(slow_ratio("6h"), QUICK),
                "slowness, 3 d": _budget_left(slow_ratio("3d"), QUICK),
            },
            "percentunit",
        ),
        Panel(
            "Answers by status", REQUESTS.family.help, {"{{status}}": _rate("status", REQUESTS.total(**HERE))}, "reqps"
        ),
        Panel("Answers by route", REQUESTS.family.help, {"{{route}}": _rate("route", REQUESTS.total(**HERE))}, "reqps"),
        Panel("Errors by code", ERRORS.family.help, {"{{code}}": _rate("code", ERRORS.total(**HERE))}, "reqps"),
        Panel("Seconds of a request", "Of requests that a model answered.", _quantiles(_TOTAL), "s"),
        Panel("Dropped pictures", DROPPED.family.help, {"{{reason}}": _rate("reason", DROPPED.total(**HERE))}),
    ),
)

STAGES = Dashboard(
    "stages",
    "imageclass: stages and batches",
    (
        Panel(
            "Time by stage",
            "Seconds of work in each second: " + STAGE_SECONDS.family.help,
            {"{{stage}}": _rate("stage", STAGE_SECONDS.sum(**OF_MODEL, stage='!="total"'))},
            "s",
            stacked=True,
        ),
        *(
            Panel(
                f"Seconds of {stage}",
                STAGE_SECONDS.family.help,
                _quantiles(STAGE_SECONDS.buckets(**OF_MODEL, stage=f'="{stage}"')),
                "s",
            )
            for stage in ("read", "queue", "decode", "inference")
        ),
        Panel("Pictures in a batch", BATCH_SIZE.family.help, _quantiles(BATCH_SIZE.buckets(**OF_MODEL))),
        Panel(
            "Mean pictures in a batch",
            BATCH_SIZE.family.help,
            {"{{model}}": _ratio("model", BATCH_SIZE.sum(**OF_MODEL), BATCH_SIZE.count(**OF_MODEL))},
        ),
        Panel(
            "Seconds of a batch by its size",
            VERSION_BATCH_SECONDS.family.help,
            {
                "{{model}} {{version}}, {{size}}": _ratio(
                    "model, version, size",
                    VERSION_BATCH_SECONDS.sum(**OF_MODEL),
                    VERSION_BATCH_SECONDS.count(**OF_MODEL),
                )
            },
            "s",
        ),
        Panel("Pictures held", PENDING_PICTURES.family.help, {"{{instance}}": PENDING_PICTURES.value(**HERE)}),
        Panel("Bytes held", PENDING_BYTES.family.help, {"{{instance}}": PENDING_BYTES.value(**HERE)}, "bytes"),
    ),
)

LABELS = Dashboard(
    "labels",
    "imageclass: labels and confidence",
    (
        Panel(
            "Pictures a second by label",
            PREDICTIONS.family.help,
            {"{{model}}: {{label}}": _rate("model, label", PREDICTIONS.total(**OF_MODEL))},
            stacked=True,
        ),
        Panel(
            "Share of each label",
            PREDICTIONS.family.help,
            {
                "{{model}}: {{label}}": _rate("model, label", PREDICTIONS.total(**OF_MODEL))
                + " / on (model) group_left () "
                + _rate("model", PREDICTIONS.total(**OF_MODEL))
            },
            "percentunit",
            stacked=True,
        ),
        Panel(
            "Top probability",
            TOP_PROBABILITY.family.help,
            _quantiles(TOP_PROBABILITY.buckets(**OF_MODEL)),
            "percentunit",
        ),
        Panel(
            "Mean top probability: an hour beside a week",
            "A fall says that pictures are of another kind than before.",
            {
                "{{model}}, 1 h": 'job_model:imageclass_top_probability:mean1h{job=~"$job",model=~"$model"}',
                "{{model}}, 7 d": 'job_model:imageclass_top_probability:mean7d{job=~"$job",model=~"$model"}',
            },
            "percentunit",
        ),
        *(
            Panel(
                f"Share at or below {bound}",
                TOP_PROBABILITY.family.help,
                {
                    "{{model}}": _ratio(
                        "model",
                        TOP_PROBABILITY.up_to(bound, **OF_MODEL),
                        TOP_PROBABILITY.count(**OF_MODEL),
                    )
                },
                "percentunit",
            )
            for bound in (0.5, 0.9)
        ),
    ),
)

VERSIONS = Dashboard(
    "versions",
    "imageclass: versions and loads",
    (
        Panel(
            "Versions served",
            MODEL_INFO.family.help,
            {"{{model}} {{version}}, {{engine}} {{precision}}": f"{MODEL_INFO.value(**OF_MODEL)} == 1"},
        ),
        Panel(
            "Pictures a second by version",
            VERSION_PICTURES.family.help,
            {"{{model}} {{version}}": _rate("model, version", VERSION_PICTURES.total(**OF_MODEL))},
        ),
        Panel(
            "Loads by outcome",
            MODEL_LOADS.family.help,
            {
                "{{model}} {{version}}: {{outcome}}": (
                    f"sum by (model, version, outcome) ({MODEL_LOADS.total(**OF_MODEL)})"
                )
            },
        ),
        Panel(
            "Versions refused",
            MODEL_LOADS.family.help,
            {
                "{{model}} {{version}}: {{outcome}}": (
                    f"sum by (model, version, outcome) ({MODEL_LOADS.total(**OF_MODEL, outcome=_NOT_LIVE)})"
                )
            },
        ),
        Panel(
            "Mean seconds by version",
            VERSION_SECONDS.family.help,
            {
                "{{model}} {{version}}: {{of}}": _ratio(
                    "model, version, of", VERSION_SECONDS.sum(**OF_MODEL), VERSION_SECONDS.count(**OF_MODEL)
                )
            },
            "s",
        ),
        Panel(
            "Last picture of a version",
            LAST_INFERENCE.family.help,
            {"{{model}} {{version}}": f"1000 * max by (model, version) ({LAST_INFERENCE.value(**OF_MODEL)})"},
            "dateTimeFromNow",
            is_stat=True,
        ),
    ),
)

PROCESS = Dashboard(
    "process",
    "imageclass: process",
    (
        Panel("Workers ready", WORKERS_READY.family.help, {"{{instance}}": WORKERS_READY.value(**HERE)}),
        Panel(
            "Worker starts in an hour",
            WORKER_STARTS.family.help,
            {"{{instance}}": f"increase({WORKER_STARTS.total(**HERE)}[1h])"},
        ),
        Panel(
            "Resident memory",
            RESIDENT_BYTES.family.help,
            {"{{instance}} worker {{worker}}": RESIDENT_BYTES.value(**HERE)},
            "bytes",
        ),
        Panel("Connections", CONNECTIONS.family.help, {"{{instance}}": CONNECTIONS.value(**HERE)}),
        Panel("Places taken back", CORRECTIONS.family.help, {"{{instance}}": CORRECTIONS.total(**HERE)}),
        Panel(
            "What runs",
            "Versions of the service and of Python.",
            {"{{version}}, Python {{python}}": f'count by (version, python) ({BUILD_INFO}{{job=~"$job"}})'},
            is_stat=True,
        ),
    ),
)

DASHBOARDS = (OVERVIEW, STAGES, LABELS, VERSIONS, PROCESS)
