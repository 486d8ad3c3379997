"""`python -m bench.study.alignment [--threads N] [--out FILE]`: what a prompt that is told as the base's pre-training
tells such things is worth to a method without a gradient, and to one with.

The demo's template (`Review: ... Rating:`, `... Topic:`) against the text and a line's end alone, the choices the same.
An invocation is what all prompts end in, so the plain template's has one token and the demo's more: in a line "last
token" the demo's adapter acts on as few. MeZO has three times its rate too, for it moves by the slopes' size, which
prompts change. Losses are of held-out rows that nothing was chosen on.
"""

from collections.abc import Mapping
from typing import Any, Final

from bench.study import small
from bench.study.grid import CLIP, POPULATION, SMOLLM2, B
from bench.study.lines import Line, Template

SHAPE: Final = {"schedule": "linear", "targets": SMOLLM2["targets"], "repeat": 4}
METHODS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "mezo 0.15": ("mezo", {"learning_rate": 0.15, "batch_size": 4, **POPULATION, **B, **CLIP}),
    "mezo 0.45": ("mezo", {"learning_rate": 0.45, "batch_size": 4, **POPULATION, **B, **CLIP}),
    "es 0.3": ("es", {"learning_rate": 0.3, "batch_size": 4, "queries": 16, **B}),
    "first_order 2e-3": ("first_order", {"learning_rate": 2e-3, "batch_size": 8}),
}
START: Final[Mapping[Template, str]] = {"demo": "bare base, the demo's template", "plain": "bare base, plain"}


def lines() -> list[Line]:
    """One a template and method."""
    return [one for own in groups().values() for one in own]


def groups() -> dict[str, list[Line]]:
    """Those of a template, by how the bare base is called on it."""
    templates: tuple[Template, ...] = ("demo", "plain")
    found = {START[template]: [_line(name, template, template) for name in METHODS] for template in templates}
    found[START["demo"]] += [_line(name, "demo", "demo, last token", acting=1) for name in METHODS]
    return found


def _line(name: str, template: Template, said: str, **more: Any) -> Line:
    method, own = METHODS[name]
    fields = {**SHAPE, **own}
    return Line(f"{said}, {name}", "alignment", method, fields, (12, 24), budget=1e9, template=template, **more)


def table(found: small.Cells) -> str:
    """What the file has, a row a line, both tasks beside each other."""
    return small.ends(found, groups())


if __name__ == "__main__":
    small.main("alignment", __doc__, lines(), small.DEMO, table)
