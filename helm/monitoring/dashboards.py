"""All dashboards, as text that is the same at every run."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from helm.monitoring import capacity, engine, http, overview, quality, reliability, serving, tenants, throughput

FOLDER = Path(__file__).parents[1] / "dashboards"
BOARDS = (overview, throughput, tenants, engine, serving, reliability, http, quality, capacity)


def texts() -> dict[str, str]:
    """File name -> JSON, in the order in which one reads them."""
    made = [module.board().build() for module in BOARDS]
    return {f"{board.uid}.json": json.dumps(board, cls=JSONEncoder, sort_keys=True, indent=1) + "\n" for board in made}
