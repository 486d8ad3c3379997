"""Where an alert's runbook is, as the rule file says."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import dashboard

RULES = Path(__file__).parents[1] / "rules" / "onward.yaml"
BASE = "docs/runbooks/"


@lru_cache
def alerts() -> dict[str, dict[str, Any]]:
    """Alert name -> its rule."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def link(alert: str) -> dashboard.DashboardLink:
    """A panel's link to what to do about `alert`; the variable `runbooks` is the address of docs/runbooks."""
    page: str = alerts()[alert]["annotations"]["runbook_url"].removeprefix(BASE)
    return dashboard.DashboardLink(f"Runbook: {alert}").url("${runbooks}/" + page).target_blank(True)
