"""What a dashboard is made of: panels with their queries, laid out left to right; and its JSON, as Grafana reads it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["stat", "timeseries", "state-timeline", "bargauge", "table"]
Needs = Literal["", "gpu", "hca", "rdma"]
SCHEMA = 39  # of Grafana 11's dashboards; later ones read it too
COLUMNS = 24
HEIGHTS: Mapping[Kind, int] = {"stat": 4, "timeseries": 8, "state-timeline": 8, "bargauge": 8, "table": 8}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """One query of a panel; ``legend`` names its series by their labels: ``{{node}}``."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture. ``unit`` is Grafana's name for it; ``needs`` is the hardware without which it stays empty."""

    title: str
    queries: tuple[Query, ...]
    about: str
    kind: Kind = "timeseries"
    unit: str = "short"
    width: int = 12
    needs: Needs = ""
    most: float | None = None
    good: bool | None = None  # of a stat that is 0 or 1: which of them is as it should be


@dataclass(frozen=True)
class Board:
    """One dashboard; ``uid`` is its place in Grafana's addresses."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def grafana(board: Board) -> dict[str, Any]:
    """The dashboard's JSON."""
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["shoal"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), _nodes()]},
        "links": [{"type": "dashboards", "tags": ["shoal"], "title": "shoal", "asDropdown": False, "keepTime": True}],
        "panels": list(_placed(board.panels)),
    }


def _datasource() -> dict[str, Any]:
    return {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "hide": 0}


def _nodes() -> dict[str, Any]:
    query = "label_values(shoal_node_up, node)"
    return {
        "type": "query",
        "name": "node",
        "label": "Node",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "node"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    """Each panel with its place: from left to right, a new row where the width is used up."""
    left = top = tallest = 0
    for number, panel in enumerate(panels, 1):
        height = HEIGHTS[panel.kind]
        if left + panel.width > COLUMNS:
            left, top, tallest = 0, top + tallest, 0
        yield _panel(panel, number) | {"gridPos": {"x": left, "y": top, "w": panel.width, "h": height}}
        left, tallest = left + panel.width, max(tallest, height)


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "targets": [_target(query, panel, place) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel.kind),
    }


def _target(query: Query, panel: Panel, place: int) -> dict[str, Any]:
    at_once = panel.kind in {"stat", "bargauge", "table"}
    return {
        "refId": chr(ord("A") + place),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": at_once,
        "range": not at_once,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        found["max"] = panel.most
    if panel.kind == "timeseries":
        found["custom"] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    if panel.good is not None:
        colours = ("red", "green") if panel.good else ("green", "red")
        texts = ("no", "yes")
        options = {str(value): {"text": texts[value], "color": colours[value]} for value in (0, 1)}
        found["mappings"] = [{"type": "value", "options": options}]
        found["color"] = {"mode": "fixed", "fixedColor": "text"}
    return found


def _options(kind: Kind) -> dict[str, Any]:
    if kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if kind == "state-timeline":
        return {"mergeValues": True, "showValue": "never", "legend": {"displayMode": "list", "placement": "bottom"}}
    if kind == "table":
        return {"showHeader": True}
    shown = {"values": False, "calcs": ["lastNotNull"], "fields": ""}
    return {"reduceOptions": shown, "textMode": "auto"} if kind == "stat" else {"reduceOptions": shown}
