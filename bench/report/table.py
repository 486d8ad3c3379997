"""The answer to "why not a training loop?" as one table, and every other figure as lines. Knows figures, no clock."""

from collections.abc import Iterator
from typing import Any

CPU = "times onward's processor time"
COLUMNS = ("s/step", "tokens/s", "x onward", "x cpu", "of floor", "added MiB", "to target")


def rows(figures: dict[str, Any]) -> Iterator[str]:
    """A block a workload, a line a contender: medians, with quartiles for the ratio to Onward. `x cpu` is the ratio of
    processor time, which other work on the machine hardly moves; `to target` is wall-clock to the quality section's
    target loss, where that has been measured: figures["quality"]["to target"][workload][contender], seconds."""
    memory, quality = figures.get("memory", {}), figures.get("quality", {}).get("to target", {})
    for name, found in figures.get("compare", {}).items():
        yield from block(name, found, memory.get(name, {}), quality.get(name, {}))
        if name == "sentences" and "service" in figures:
            service = figures["service"]
            ratio = service["service over bare"]
            yield line(
                "onward as a service",
                f"{service['service seconds a step']['median']:.3g}",
                "",
                _ratio(ratio),
                f"{service['service over bare, processor time']['median']:.2f}",
            )
            yield "    (its ratio is to the bare engine's step in turns of its own)"


def block(name: str, found: dict[str, Any], memory: dict[str, Any], quality: dict[str, Any]) -> Iterator[str]:
    """One workload."""
    tokens, rounds = found["scored tokens a step"], found["rounds"]
    yield ""
    yield f"{name}: {found['workload']}; {tokens:.0f} scored tokens a step, {rounds} rounds"
    yield line("", *COLUMNS)
    for who, c in found["contenders"].items():
        yield line(
            who,
            f"{c['seconds a step']['median']:.3g}",
            f"{c['scored tokens/s']['median']:.0f}",
            _ratio(c["times onward's step"]),
            f"{c[CPU]['median']:.2f}",
            f"{c['fraction of the floor']['median']:.2f}",
            f"{memory[who]['added bytes'] / 2**20:.0f}" if who in memory else "",
            f"{quality[who]:.0f} s" if who in quality else "",
        )
        if "prompt tokens" in c:
            rate = c["prompt tokens"] / c["prompt seconds"]
            yield f"    (prompts, once a job: {c['prompt tokens']} tokens at {rate:.0f} tokens/s)"


def _ratio(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} [{spread['q1']:.2f} .. {spread['q3']:.2f}]"


def line(name: str, *cells: str) -> str:
    widths = (9, 9, 22, 7, 9, 10, 10)
    return f"  {name:<24}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))


def lines(found: dict[str, Any], indent: str = "") -> list[str]:
    """One line a figure of a section that is no table; a spread as its median and quartiles."""
    out = []
    for key, value in found.items():
        if isinstance(value, dict) and "median" in value:
            extra = f"  p95 {value['p95']:.4g}" if "p95" in value else ""
            out.append(f"{indent}{key:<36} {value['median']:.4g}  [{value['q1']:.4g} .. {value['q3']:.4g}]{extra}")
        elif isinstance(value, dict):
            out += [f"{indent}{key}", *lines(value, indent + "  ")]
        else:
            out.append(f"{indent}{key:<36} {value:.4g}" if isinstance(value, float) else f"{indent}{key:<36} {value}")
    return out
