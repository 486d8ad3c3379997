"""The lines that are compared: every method's grid, of each kind of job. Data; no engine."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from bench.study.lines import BUDGET, SEEDS, TASKS, Cell, Line, Task
from bench.study.store import Measured

SMOLLM2: Final = {"targets": ("v_proj", "o_proj"), "eps": 1e-2}


def _pair(name: str, rate: float, *points: int, **fields: Any) -> Line:
    """MeZO's one two-sided pair on 8 rows that serve 4 steps."""
    own = {"estimator": "two_point", "queries": 1, "a_factor": 1.0, "learning_rate": rate, "schedule": "linear"}
    own |= {"clip": 5.0, "batch_size": 8, "repeat": 4}
    return Line(name, "mezo, pair", "mezo", {**SMOLLM2, **own, **fields}, points)


def _population(name: str, rate: float, *points: int, **fields: Any) -> Line:
    """MeZO with 16 one-sided probes, their mean as baseline, on 2 rows, A left alone."""
    own = {"estimator": "population", "queries": 16, "a_factor": 0.0, "learning_rate": rate, "schedule": "linear"}
    shape = {"clip": 5.0, "batch_size": 2, "repeat": 1}
    return Line(name, "mezo, population, B alone", "mezo", {**SMOLLM2, **own, **shape, **fields}, points)


def _strategy(name: str, rate: float, *points: int, budget: float = BUDGET, **fields: Any) -> Line:
    """The same population, its losses weighed against their own deviation: one rate whatever the loss's scale."""
    own = {"queries": 16, "a_factor": 0.0, "learning_rate": rate, "schedule": "linear", "batch_size": 2, "repeat": 1}
    return Line(name, "evolution strategy, B alone", "es", {**SMOLLM2, **own, **fields}, points, budget=budget)


def _last(name: str, rate: float, **fields: Any) -> Line:
    """The strategy on the last 16 of the layers, for all that the first preset cost; beside other work half as much
    again."""
    shape = {"batch_size": 4, "repeat": 2, "layers": "last:16"}
    return _strategy(name, rate, 30, 60, 90, 120, 150, budget=200.0, **{**shape, **fields})


def _first_order(name: str, rate: float, *points: int, **fields: Any) -> Line:
    """AdamW on the same adapter, 8 rows a step."""
    own = {"learning_rate": rate, "schedule": "linear", "batch_size": 8, "targets": SMOLLM2["targets"]}
    return Line(name, "first order", "first_order", {**own, **fields}, points)


THIRTY, SIXTY, EIGHTS = (10, 20, 30), (10, 20, 30, 45, 60), (8, 16, 24)


def _sixteen(name: str, method: str, rate: float, points: tuple[int, ...] = EIGHTS, **fields: Any) -> Line:
    """A method on B alone where it can, 16 forward passes a step of 4 rows that serve 4 steps, its rate falling to 0:
    one shape for all, so that what differs is the method. Rates were set by the size of the first move of dW on losses
    that are linear in it (a slope of 1.65 nats along unit noise on B): that of the strategy at 0.3, and 0.4 of it."""
    own = {"batch_size": 4, "repeat": 4, "learning_rate": rate, "schedule": "linear", "targets": SMOLLM2["targets"]}
    return Line(name, method.replace("_", " "), method, {**own, **fields}, points)


POPULATION: Final[Mapping[str, Any]] = {"estimator": "population", "queries": 16}
B: Final[Mapping[str, Any]] = {"eps": 1e-2, "a_factor": 0.0}
WINDOW: Final[Mapping[str, Any]] = {"eps": 1e-3}
CLIP: Final[Mapping[str, Any]] = {"clip": 5.0}
# Of each method: its settings, and the rate whose first move is as large as the strategy's at 0.3.
METHODS: Final[Mapping[str, tuple[float, Mapping[str, Any]]]] = {
    "mezo": (0.15, {**POPULATION, **B, **CLIP}),
    "sign": (0.2, {"queries": 8, **B}),
    "fzoo": (0.3, {"queries": 15, **B}),
    "kerzoo": (0.045, {"queries": 8, **B, "eps": 2e-2}),
    "cons": (0.075, {"queries": 6, **B, **CLIP}),
    "guided": (0.05, {"pool": 14, **B, **CLIP}),
    "svrg": (0.06, {"queries": 4, "anchor_every": 8, "anchor_queries": 4, **B, **CLIP}),
    "blockwise": (0.9, {**POPULATION, **B, **CLIP}),
    "lezo": (0.3, {**POPULATION, **B, **CLIP}),
    "sparse_mezo": (0.15, {**POPULATION, **B, **CLIP, "mask_every": 8}),
    "dizo": (0.15, {**POPULATION, **B, **CLIP, "project_every": 8}),
    "adamezo": (0.075, {**POPULATION, **B}),
    "lozo": (2e-3, {**POPULATION, **WINDOW}),
    "subzero": (4e-3, {**POPULATION, **WINDOW}),
    "tezo": (6e-4, {**POPULATION, **WINDOW}),
    "eggroll": (1e-2, {"queries": 16, **WINDOW}),
    "zo_muon": (1.5, {"queries": 15, **WINDOW}),
    "random_search": (0.1, {"candidates": 15, "a_factor": 0.0}),
    "forward_grad": (0.15, {"queries": 8, "a_factor": 0.0, **CLIP}),
}
LESS: Final = 0.4  # of that rate: the grid's other point


def _every() -> Iterator[Line]:
    for method, (rate, fields) in METHODS.items():
        for own in (rate, LESS * rate):
            yield _sixteen(f"{method} {own:.2g} of 24", method, float(f"{own:.2g}"), **fields)


MASK: Final[Mapping[str, Any]] = {"kind": "mask", "share": 0.1}
META: Final[Mapping[str, Any]] = {"steps": 100, "batch": 4, "rate": 5e-3}


def _reading(name: str, method: str, rate: float, profile: Mapping[str, Any], **fields: Any) -> Line:
    """The same shape, of a method that reads a profile; rates by the same rule, from slopes along unit noise."""
    return replace(_sixteen(f"{name} of 24", method, rate, **fields), profile=profile)


def _profiled() -> Iterator[Line]:
    """The basis is of all tokens: those that activation `answer` acts on are too few different ones at the first
    layer. Of the last 16 layers it is of them alone."""
    basis, wide = {**POPULATION, "eps": 1e-3, "clip": 50.0}, {"kind": "basis", "activation": "all"}
    for rate in (1.2e-3, 3e-3):
        yield _reading(f"activation_basis {rate:.2g}", "activation_basis", rate, wide, **basis)
    last = {**basis, "layers": "last:16"}
    yield _reading("activation_basis 0.0012, last 16", "activation_basis", 1.2e-3, {"kind": "basis"}, **last)
    for rate in (0.3, 0.12):
        yield _reading(f"senszoq {rate:.2g}", "senszoq", rate, MASK, **POPULATION, eps=1e-2, **CLIP)
    for rate in (0.1, 0.04):
        pairs = {"queries": 8, **B, **CLIP}
        yield _reading(f"zo_finetuner {rate:.2g}", "zo_finetuner", rate, {"kind": "mlp", "plan": META}, **pairs)


def _long(name: str, method: str, rate: float, points: tuple[int, ...], **fields: Any) -> Line:
    """Activation `all`: every probe pays for every token of its rows, so fewer probes and steps."""
    own = {"batch_size": 4, "repeat": 1, "learning_rate": rate, "schedule": "linear", "targets": SMOLLM2["targets"]}
    return Line(name, method.replace("_", " "), method, {**own, **fields}, points, activation="all", budget=90.0)


def _talk(name: str, method: str, rate: float, points: tuple[int, ...], **fields: Any) -> Line:
    """Chat: ten conversations, of which the adapter is asked again. `act` is the activation."""
    activation = fields.pop("act", "answer")
    own = {"batch_size": 4, "repeat": 1, "learning_rate": rate, "schedule": "linear", "targets": SMOLLM2["targets"]}
    settings = {**own, **fields}
    return Line(name, method.replace("_", " "), method, settings, points, activation, budget=120.0, objective="lm")


PAIR: Final[Mapping[str, Any]] = {"estimator": "two_point", "queries": 1, "a_factor": 1.0, "eps": 1e-2, **CLIP}
MIXED: Final[Mapping[str, Any]] = {"zo_learning_rate": 0.02, "zo_clip": 5.0, "top_layers": 8, "queries": 1, **B}
TALKS: Final = (
    _talk("chat, first order 5e-3 of 30", "first_order", 5e-3, (5, 10, 20, 30), batch_size=8),
    _talk("chat, hybrid 5e-3 of 30", "hybrid", 5e-3, (5, 10, 20, 30), batch_size=8, **MIXED),
    _talk("chat, strategy 0.3 of 24", "es", 0.3, EIGHTS, queries=16, **B),
    _talk("chat, population 0.15 of 24", "mezo", 0.15, EIGHTS, **POPULATION, **B, **CLIP),
    _talk("chat, fzoo 0.3 of 24", "fzoo", 0.3, EIGHTS, queries=15, **B),
    _talk("chat all, first order 5e-3 of 30", "first_order", 5e-3, (5, 10, 20, 30), batch_size=8, act="all"),
    _talk("chat all, hybrid 5e-3 of 30", "hybrid", 5e-3, (5, 10, 20, 30), batch_size=8, act="all", **MIXED),
    _talk("chat all, strategy 0.15 of 16", "es", 0.15, (8, 16), queries=8, act="all", **B),
    _talk("chat all, pair 5e-3 of 30", "mezo", 5e-3, (10, 20, 30), batch_size=8, act="all", **PAIR),
    _talk("chat all, fzoo 0.15 of 16", "fzoo", 0.15, (8, 16), queries=7, act="all", **B),
)
WHOLE: Final = (
    _long("all, first order 2e-3 of 16", "first_order", 2e-3, (4, 8, 16), batch_size=8),
    _long("all, strategy 0.15 of 16", "es", 0.15, (8, 16), queries=8, **B),
    _long("all, pair 5e-3 of 40", "mezo", 5e-3, (20, 40), batch_size=8, **PAIR),
    _long("all, fzoo 0.15 of 16", "fzoo", 0.15, (8, 16), queries=7, **B),
    _long("all, lezo 0.15 of 16", "lezo", 0.15, (8, 16), estimator="population", queries=8, **B, **CLIP),
    _long("all, lozo 0.001 of 16", "lozo", 1e-3, (8, 16), estimator="population", queries=8, **WINDOW),
    _long("all, lozo 0.0004 of 16", "lozo", 4e-4, (8, 16), estimator="population", queries=8, **WINDOW),
    _long("all, sign 0.1 of 16", "sign", 0.1, (8, 16), queries=4, **B),
)

LINES: Final[tuple[Line, ...]] = (
    _pair("pair 5e-3 of 200", 5e-3, 50, 100, 150, 200),
    _pair("pair 1e-2 of 60", 1e-2, *(20, 40, 60)),
    _population("population 0.3 of 30", 0.3, *THIRTY),
    _population("population 0.1 of 30", 0.1, *THIRTY),
    _population("population 0.3 of 60", 0.3, *SIXTY),
    _strategy("strategy 0.3 of 30", 0.3, *THIRTY),
    _strategy("strategy 0.6 of 30", 0.6, *THIRTY),
    _strategy("strategy 0.3 of 30, 4 rows", 0.3, *THIRTY, batch_size=4),
    _strategy("strategy 0.3 of 40, 4 rows, repeat 4", 0.3, 10, 20, 30, 40, batch_size=4, repeat=4),
    _strategy("strategy 0.15 of 40, 4 rows", 0.15, 10, 20, 30, 40, batch_size=4),
    _strategy("strategy 0.3 of 40, repeat 4", 0.3, 10, 20, 30, 40, repeat=4),
    _strategy(
        "strategy 0.3 of 40, 8 rows, 8 queries, repeat 8", 0.3, 10, 20, 30, 40, batch_size=8, queries=8, repeat=8
    ),
    _strategy("strategy 0.6 of 40, 4 rows, repeat 4", 0.6, 10, 20, 30, 40, batch_size=4, repeat=4),
    _strategy("strategy 0.15 of 40, 4 rows, repeat 4", 0.15, 10, 20, 30, 40, batch_size=4, repeat=4),
    _last("strategy 0.3 of 150, last 16, repeat 2", 0.3),
    _last("strategy 0.3 of 150, last 16, repeat 2, cosine", 0.3, schedule="cosine"),
    _last("strategy 0.2 of 150, last 16, repeat 2, cosine", 0.2, schedule="cosine"),
    _strategy("strategy 0.3 of 40, 2 rows, 32 queries, repeat 2", 0.3, 10, 20, 30, 40, queries=32, repeat=2),
    _strategy(
        "strategy 0.3 of 40, 16 rows, 4 queries, repeat 16", 0.3, 10, 20, 30, 40, batch_size=16, queries=4, repeat=16
    ),
    _sixteen(
        "blockwise together 0.9 of 24",
        "blockwise",
        0.9,
        estimator="one_sided",
        queries=3,
        **B,
        **CLIP,
        blocks=4,
        together=True,
    ),
    _strategy("strategy 0.3 of 60, last 16", 0.3, 15, 30, 45, 60, batch_size=4, repeat=4, layers="last:16"),
    _strategy(
        "strategy 0.3 of 60, last 16, rank 4", 0.3, 15, 30, 45, 60, batch_size=4, repeat=4, layers="last:16", rank=4
    ),
    _strategy("strategy 0.2 of 60, last 16", 0.2, 15, 30, 45, 60, batch_size=4, repeat=4, layers="last:16"),
    _strategy("strategy 0.3 of 30, 4 rows, A 0.1", 0.3, *THIRTY, batch_size=4, a_factor=0.1),
    _strategy("strategy 0.3 of 30, 4 rows, cosine", 0.3, *THIRTY, batch_size=4, schedule="cosine"),
    _strategy("strategy 0.3 of 15, 4 rows", 0.3, 5, 10, 15, batch_size=4),
    _first_order("first order 2e-3 of 24", 2e-3, 4, 8, 12, 24),
    _first_order("first order 2e-3 of 24, repeat 4", 2e-3, 4, 8, 16, 24, repeat=4),
    *_every(),
    *_profiled(),
    _sixteen("mezo 0.45 of 24", "mezo", 0.45, **POPULATION, **B, **CLIP),
    _sixteen("mezo 0.15 of 24, A 0.1", "mezo", 0.15, **{**POPULATION, **B, **CLIP, "a_factor": 0.1}),
    _sixteen("eggroll own 0.01 of 24", "eggroll", 1e-2, queries=16, members="own", **WINDOW),
    _sixteen("hizoo 0.1 of 48", "hizoo", 0.1, (16, 32, 48), batch_size=8, **B, **CLIP),
    _sixteen("hizoo 0.04 of 48", "hizoo", 0.04, (16, 32, 48), batch_size=8, **B, **CLIP),
    *TALKS,
    *WHOLE,
    _sixteen("hybrid 2e-3 of 24", "hybrid", 2e-3, batch_size=8, zo_learning_rate=0.05, zo_clip=5.0, **B),
    _sixteen(
        "hybrid 2e-3 of 24, 8 layers",
        "hybrid",
        2e-3,
        batch_size=8,
        zo_learning_rate=0.02,
        zo_clip=5.0,
        top_layers=8,
        **B,
    ),
)
# What `--quick` runs, on one seed: the pair re-tuned and the population, beside first-order.
QUICK: Final = ("pair 1e-2 of 60", "population 0.3 of 30", "first order 2e-3 of 24, repeat 4")


def cells(names: Sequence[str], tasks: Sequence[Task] = (), seeds: Sequence[int] = SEEDS) -> Iterator[Cell]:
    """Of the lines of these names (all without any), on those of these tasks (all without any) that are of their kind,
    in the order in which they are run: the first seed of every line first. Raises KeyError for a name that is no
    line's."""
    known = {line.name: line for line in LINES}
    chosen = [known[name] for name in names] if names else list(LINES)
    for seed in seeds:
        for line in chosen:
            for task in TASKS[line.objective]:
                if not tasks or task in tasks:
                    yield Cell(line, task, seed)


def same(measured: Measured, line: Line) -> bool:
    """Whether a cell is a run of this line as it is now: what it was asked for beside what its spec came to."""
    of = (line.family, line.method, line.activation)
    adapter = measured.asked["adapter"]
    depth = f"last:{len(adapter['layers'])}" if "layers" in adapter else "all"
    flat = {**measured.asked, **adapter, **measured.asked["method"], "method": line.method, "layers": depth}
    said = json.loads(json.dumps(line.asked))
    made = measured.profile or {}
    alike = said.items() <= flat.items() and json.loads(json.dumps(dict(line.profile))).items() <= made.items()
    return of == (measured.family, measured.method, measured.activation) and alike
