"""The folder that runs Prometheus and Grafana: compose file, settings, targets, dashboards. Pure.

Paths in Prometheus' settings are relative, so that the folder works in the container and beside a bare Prometheus.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from shoal.render.dashboards.alerts import AGENT, SUPERVISOR, VLLM, Alert, document
from shoal.render.dashboards.boards import BOARDS
from shoal.render.dashboards.panels import grafana

SCRAPE = "15s"
PROMETHEUS, GRAFANA = "prom/prometheus:v3.5.0", "grafana/grafana:11.6.0"
ENV, PASSWORD = ".env", "grafana.password"
MADE = "# Made by `shoal dashboards`; the next one writes it anew.\n"


@dataclass(frozen=True)
class Targets:
    """What is scraped, as ``ADDRESS:PORT``; ``key_file`` holds the API key, which vLLM's own metrics want."""

    agents: tuple[str, ...]
    supervisor: str
    api: str
    key_file: str = ""


def files(targets: Targets, rules: Sequence[Alert]) -> dict[str, str]:
    """The folder's files by name, all but the user's own: ``.env`` and the password."""
    found = {
        "README.md": README,
        "compose.yaml": MADE + COMPOSE,
        "prometheus/prometheus.yml": MADE + _yaml(_prometheus()),
        "prometheus/alerts.yml": MADE + _yaml(document(rules)),
        "prometheus/targets/agents.yml": _targets(targets.agents),
        "prometheus/targets/supervisor.yml": _targets((targets.supervisor,)),
        "prometheus/targets/vllm.yml": _targets((targets.api,)),
        "grafana/provisioning/datasources/prometheus.yml": MADE + _yaml(_datasource()),
        "grafana/provisioning/dashboards/shoal.yml": MADE + _yaml(_provider()),
    }
    boards = {f"grafana/dashboards/{one.uid}.json": json.dumps(grafana(one), indent=2) + "\n" for one in BOARDS}
    return found | boards


def env(targets: Targets, user: str) -> str:
    """``.env``: the user's own from then on."""
    return ENVIRONMENT.format(
        key=targets.key_file or "./key/api.key", user=user, prometheus=PROMETHEUS, grafana=GRAFANA
    )


def _yaml(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)


def _targets(addresses: Sequence[str]) -> str:
    return MADE + _yaml([{"targets": list(addresses)}])


def _prometheus() -> dict[str, Any]:
    def job(name: str, file: str, **more: Any) -> dict[str, Any]:
        return {"job_name": name, "file_sd_configs": [{"files": [f"targets/{file}.yml"]}], **more}

    return {
        "global": {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            job(AGENT, "agents"),
            job(SUPERVISOR, "supervisor"),
            job(VLLM, "vllm", authorization={"type": "Bearer", "credentials_file": "../key/api.key"}),
        ],
    }


def _datasource() -> dict[str, Any]:
    source = {
        "name": "Prometheus",
        "uid": "shoal-prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": "http://$PROMETHEUS_LISTEN",
        "isDefault": True,
        "jsonData": {"timeInterval": SCRAPE},
    }
    return {"apiVersion": 1, "datasources": [source]}


def _provider() -> dict[str, Any]:
    options = {"path": "/shoal/dashboards"}
    provider = {"name": "shoal", "folder": "shoal", "type": "file", "allowUiUpdates": False, "options": options}
    return {"apiVersion": 1, "providers": [provider]}


COMPOSE = """\
# Both listen on loopback only. From elsewhere: ssh -L 3000:127.0.0.1:3000 THIS-MACHINE
services:
  prometheus:
    image: ${PROMETHEUS_IMAGE}
    network_mode: host  # the agents answer on the fabric
    user: ${MONITOR_USER}  # who may read the API key, and writes ./data
    command:
      - --config.file=/shoal/prometheus/prometheus.yml
      - --storage.tsdb.path=/data
      - --storage.tsdb.retention.time=15d
      - --web.listen-address=${PROMETHEUS_LISTEN}
    volumes:
      - ./prometheus:/shoal/prometheus:ro
      - type: bind  # fails where the file is missing, instead of making a folder of its name
        source: ${SHOAL_API_KEY_FILE}
        target: /shoal/key/api.key
        read_only: true
      - ./data/prometheus:/data
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    restart: unless-stopped
    logging: &logs
      driver: json-file
      options:
        max-size: 10m
        max-file: "3"
  grafana:
    image: ${GRAFANA_IMAGE}
    network_mode: host
    user: ${MONITOR_USER}
    environment:
      GF_SERVER_HTTP_ADDR: ${GRAFANA_ADDRESS}
      GF_SERVER_HTTP_PORT: ${GRAFANA_PORT}
      GF_SECURITY_ADMIN_PASSWORD__FILE: /run/grafana.password
      GF_ANALYTICS_REPORTING_ENABLED: "false"  # nothing is sent anywhere
      GF_ANALYTICS_CHECK_FOR_UPDATES: "false"
      GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES: "false"
      GF_NEWS_NEWS_FEED_ENABLED: "false"
      GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH: /shoal/dashboards/shoal-cluster.json
      PROMETHEUS_LISTEN: ${PROMETHEUS_LISTEN}
    volumes:
      - ./grafana/provisioning:/etc/grafana/provisioning:ro
      - ./grafana/dashboards:/shoal/dashboards:ro
      - ./grafana.password:/run/grafana.password:ro
      - ./data/grafana:/var/lib/grafana
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    restart: unless-stopped
    logging: *logs
"""

ENVIRONMENT = """\
# Made by `shoal dashboards`, once: yours from now on.
# The file with the API key, which vLLM's own metrics want.
SHOAL_API_KEY_FILE={key}
# USER:GROUP by number of who may read it; ./data must be theirs.
MONITOR_USER={user}
PROMETHEUS_LISTEN=127.0.0.1:9090
GRAFANA_ADDRESS=127.0.0.1
GRAFANA_PORT=3000
PROMETHEUS_IMAGE={prometheus}
GRAFANA_IMAGE={grafana}
"""

README = """\
# Prometheus and Grafana beside a shoal cluster

Made by `shoal dashboards`. Run it on the head, or on any machine that reaches the nodes' fabric addresses.

```sh
docker compose up -d
```

Then open `http://127.0.0.1:3000`: user `admin`, password in `grafana.password`. There are three dashboards: cluster,
fabric, engine. The alerts are at `http://127.0.0.1:9090/alerts`, and in Grafana. To be told of them, add an
Alertmanager, or a contact point in Grafana: none is set up here.

- `.env` names the images, the ports, and the file with the API key. It is yours: it is not written again.
- `prometheus/targets/` names what is scraped. Prometheus notices a change by itself.
- Agents that let only nodes in (`shoal firewall`) must know this machine: `shoal firewall --also ADDRESS`.
- Without containers: `prometheus --config.file=prometheus/prometheus.yml`, with the API key in `key/api.key`.
"""
