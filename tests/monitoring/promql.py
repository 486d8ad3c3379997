"""PromQL as tests see it: does it parse, and which metrics does it name."""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from helm.monitoring.prometheus import asked, filled
from tests.tools import tool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm" / "rules" / "onward.yaml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {r["alert"]: r for g in GROUPS for r in g["rules"] if "alert" in r}
RECORDED: dict[str, dict[str, Any]] = {r["record"]: r for g in GROUPS for r in g["rules"] if "record" in r}
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "helm" / "dashboards").glob("*.json"))
}
QUERIES = [(uid, query) for uid, board in BOARDS.items() for query in asked(board)]
WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


def promtool(*arguments: str | Path) -> str:
    """What promtool says; the test fails with it where it objects."""
    ran = subprocess.run([str(tool("promtool")), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def check(expressions: Iterable[str], folder: Path) -> None:
    """promtool parses each expression, as a rule of its own."""
    rules = [{"record": f"parsed:{n}", "expr": filled(expr)} for n, expr in enumerate(expressions)]
    assert rules
    path = folder / "parsed.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "parsed", "rules": rules}]}))
    promtool("check", "rules", path)


def metrics(expr: str) -> set[str]:
    """The metrics that an expression names, but for vLLM's, whose names are matched by a pattern."""
    plain = re.sub(r'"[^"]*"|\'[^\']*\'', "", expr)
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\$\w+", " ", plain)
    plain = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", plain)
    names = re.findall(r"(?<![\w:.])([a-zA-Z_][\w:]*)(?![\w:]*\s*\()", plain)
    return {name for name in names if name.lower() not in WORDS}


def variables(board: Mapping[str, Any]) -> set[str]:
    return {"$" + variable["name"] for variable in board["templating"]["list"]}
