"""What a run of the chaos program says: a table for people, JSON for the rest. Knows no process and no row."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.report.measure import machine
from tests.chaos.cases import Held
from tests.chaos.watch import Verdict


def gathered(seed: int, verdict: Verdict | None, cases: Sequence[Held], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, as JSON has it."""
    out: dict[str, Any] = {"seed": seed, "machine": machine(), **extra}
    if verdict is not None:
        out["invariants"] = {
            i.name: {"held": i.held, "broken": len(i.wrong), "of": i.of, "wrong": i.wrong[:20]}
            for i in verdict.invariants
        }
        out["figures"] = verdict.figures
    if cases:
        out["cases"] = [
            {
                "number": c.number,
                "name": c.name,
                "verdict": c.verdict,
                "seconds": c.seconds,
                "claims": [{"claim": x.what, "held": x.held, "measured": x.measured} for x in c.claims],
            }
            for c in cases
        ]
    return out


def written(found: Mapping[str, Any], to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(found, indent=1, default=str) + "\n")


def broken(found: Mapping[str, Any]) -> list[str]:
    """One line for each invariant and claim that does not hold."""
    out = [
        f"{name}: {', '.join(map(str, i['wrong']))}"
        for name, i in found.get("invariants", {}).items() if not i["held"]
    ]  # fmt: skip
    for case in found.get("cases", []):
        out += [f"case {case['number']}, {c['claim']}: {c['measured']}" for c in case["claims"] if not c["held"]]
    return out


def printed(found: Mapping[str, Any], console: Console) -> None:
    """The tables, and below them what is broken."""
    if "invariants" in found:
        console.print(_invariants(found["invariants"]))
        console.print(_figures(found["figures"]))
    if "cases" in found:
        console.print(_cases(found["cases"]))
    about = found["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    console.print(f"seed {found['seed']} · {about['cores']} cores of {about['cpu']} · {versions} · {about['date']}")
    for line in broken(found):
        console.print(f"BROKEN {line}", style="red", markup=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
    return table


def _invariants(found: Mapping[str, Any]) -> Table:
    table = _table("what must not be", "", "found>", "of>", "")
    for name, i in found.items():
        table.add_row(
            name, str(i["broken"]), "" if i["of"] is None else f"{i['of']:,}", "held" if i["held"] else "BROKEN"
        )
    return table


def _figures(found: Mapping[str, Any]) -> Table:
    table = _table("how it went", "", "")
    for name, value in found.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
        table.add_row(name, shown)
    return table


def _cases(found: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("fixed cases", "#>", "case", "", "measured", "s>")
    for case in found:
        measured = "; ".join(f"{c['claim']}: {c['measured']}" for c in case["claims"])
        table.add_row(str(case["number"]), case["name"], case["verdict"], measured, f"{case['seconds']:.1f}")
    return table
