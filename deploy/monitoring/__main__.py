"""`python -m deploy.monitoring`: write the rules and the dashboards anew, from the registry of the metrics."""

import json
from pathlib import Path

import yaml

from deploy.monitoring.grafana import grafana_dashboards
from deploy.monitoring.rules import rule_groups

FOLDER = Path(__file__).parent
_NOTE = "# Written by `make dashboards` from deploy/monitoring/rules.py. Do not edit.\n"


def generated() -> dict[Path, str]:
    """Return the content of each generated file."""
    rules = yaml.safe_dump(rule_groups(), sort_keys=False, width=1000, allow_unicode=True)
    dashboards = FOLDER / "grafana" / "dashboards"
    return {
        FOLDER / "rules.yml": _NOTE + rules,
        **{
            dashboards / name: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            for name, content in grafana_dashboards().items()
        },
    }


if __name__ == "__main__":
    for file, content in generated().items():
        file.write_text(content, encoding="utf-8")
