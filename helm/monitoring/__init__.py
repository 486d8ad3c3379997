"""Grafana dashboards as code: `python -m helm.monitoring` writes helm/dashboards. No process of Onward needs this."""
