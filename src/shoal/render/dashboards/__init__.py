"""Prometheus and Grafana beside a cluster: dashboards, alert rules, and the compose files that run them. Pure."""
