"""Dashboards in Grafana's JSON (schema of Grafana 11)."""

from typing import Any

from deploy.monitoring.dashboards import DASHBOARDS, HERE, Dashboard, Panel
from deploy.monitoring.series import MODEL_INFO, WORKERS_READY

_SCHEMA_VERSION = 41
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_STATS_IN_ROW, _CHARTS_IN_ROW, _COLUMNS = 4, 2, 24


def grafana_dashboard(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana imports and provisions it."""
    return {
        "uid": f"imageclass-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["imageclass"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": _SCHEMA_VERSION,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "links": [
            {
                "title": "imageclass",
                "type": "dashboards",
                "icon": "external link",
                "tooltip": "",
                "url": "",
                "tags": ["imageclass"],
                "asDropdown": False,
                "targetBlank": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": _placed(dashboard.panels),
    }


def grafana_dashboards() -> dict[str, dict[str, Any]]:
    """Return all dashboards by the name of their file."""
    return {f"{dashboard.name}.json": grafana_dashboard(dashboard) for dashboard in DASHBOARDS}


def _variables() -> list[dict[str, Any]]:
    of_job = {"job": HERE["job"]}
    menus = {
        "job": f"label_values({WORKERS_READY.value()}, job)",
        "instance": f"label_values({WORKERS_READY.value(**of_job)}, instance)",
        "model": f"label_values({MODEL_INFO.value(**of_job)}, model)",
    }
    return [
        {"type": "datasource", "name": "datasource", "label": "data source", "query": "prometheus"},
        *(
            {
                "type": "query",
                "name": name,
                "label": name,
                "query": query,
                "datasource": _DATASOURCE,
                "refresh": 2,
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"selected": True, "text": "All", "value": "$__all"},
            }
            for name, query in menus.items()
        ),
    ]


def _placed(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Return the panels from left to right and top to bottom: values in rows of four, charts in rows of two."""
    found = []
    x = y = row_height = 0
    for number, panel in enumerate(panels, 1):
        width = _COLUMNS // (_STATS_IN_ROW if panel.is_stat else _CHARTS_IN_ROW)
        height = 4 if panel.is_stat else 8
        if x + width > _COLUMNS or (x and height != row_height):
            x, y = 0, y + row_height
        row_height = height
        found.append(_panel(panel, number, {"x": x, "y": y, "w": width, "h": height}))
        x += width
    return found


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "stat" if panel.is_stat else "timeseries",
        "title": panel.title,
        "description": panel.help,
        "gridPos": place,
        "datasource": _DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": expr,
                "legendFormat": legend,
                "range": True,
            }
            for index, (legend, expr) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, **({} if panel.is_stat else {"custom": _drawn(stacked=panel.stacked)})},
            "overrides": [],
        },
        "options": _newest() if panel.is_stat else _chart(),
    }


def _drawn(*, stacked: bool) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 5,
        "showPoints": "auto",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }


def _newest() -> dict[str, Any]:
    return {
        "graphMode": "area",
        "colorMode": "value",
        "justifyMode": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
    }


def _chart() -> dict[str, Any]:
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
