"""From a job's spec to its method and layout: the one place that knows both vocabularies. Knows no engine."""

from typing import Any

from db.contract.methods.base import AdapterSettings, DescentSettings
from db.contract.methods.eggroll import Eggroll
from db.contract.methods.es import Es
from db.contract.methods.fzoo import Fzoo
from db.contract.methods.kerzoo import Kerzoo
from db.contract.methods.lozo import Lozo
from db.contract.methods.mezo import Mezo
from db.contract.methods.sign import Sign
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.types import Layout, Module
from worker.zo.descent import B, Descent, Space
from worker.zo.estimators import Estimator, Signs, Standardised, Weighing
from worker.zo.method import Method
from worker.zo.methods import eggroll, fzoo, kerzoo, lozo, mezo
from worker.zo.optimizers import Adam, Momentum, Optimizer, Sgd
from worker.zo.schedules import Schedule
from worker.zo.shapes import EVEN, Halves, Shape


def layout(spec: JobSpec, base: Base) -> Layout:
    """The adapter of `spec` on `base`: modules that a target names, in model order. Raises UnknownTarget."""
    modules = tuple(Module(*linear) for linear in base.select(spec.adapter.targets))
    return Layout(spec.adapter.rank, spec.adapter.alpha, modules, spec.adapter.invocation)


def method(spec: JobSpec, layout: Layout, restarts: int = 0) -> Method[Any]:
    """The method of `spec` on an adapter of this layout, at half its rate for each of `restarts`. Its state is its own:
    only it reads its fields."""
    return _asked(spec, layout).halved(restarts)


def _asked(spec: JobSpec, layout: Layout) -> Method[Any]:
    m = spec.method
    match m.name:
        case "mezo":
            return _descent(m, spec, mezo.AdapterSpace(layout, spec.seed), _optimizer(m), _halves(m, layout))
        case "lozo":
            return _lozo(m, spec, layout)
        case "sign" | "fzoo" | "es" | "kerzoo":
            draws = fzoo.SignSpace if m.name == "fzoo" else mezo.AdapterSpace
            entries, weighing = draws(layout, spec.seed), _weighing(m, spec.seed)
            return _descent(m, spec, entries, _optimizer(m), _halves(m, layout), weighing)
        case "eggroll":
            window = lozo.WindowSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh)
            weighing = eggroll.weighing(m.eps, m.queries, m.window_rank)
            return _descent(m, spec, window, _averaging(m), weighing=weighing)


def _optimizer(m: Mezo | Sign | Fzoo | Es | Kerzoo) -> Optimizer:
    match m.optimizer:
        case "sgd":
            return Sgd()
        case "momentum":  # ZO-SGD-MMT accumulates
            return Momentum(m.momentum)
        case "adam":
            return Adam(m.momentum, m.beta2)


def _averaging(m: Lozo | Eggroll) -> Optimizer:
    return Momentum(m.momentum, dampening=m.momentum) if m.optimizer == "momentum" else Sgd()  # LOZO-M


def _weighing(m: Sign | Fzoo | Es | Kerzoo, seed: int) -> Weighing:
    match m.name:
        case "sign":
            return Signs(m.eps, m.queries)
        case "fzoo":
            return Standardised("centre", m.eps, m.queries, m.deviation)
        case "es":
            return Standardised("mean", m.eps, m.queries)
        case "kerzoo":
            return kerzoo.Kernel(m.eps, m.queries, seed)


def _halves(m: AdapterSettings, layout: Layout) -> Shape:
    return EVEN if m.a_factor == 1 else Halves(layout, m.a_factor)


def _lozo(m: Lozo, spec: JobSpec, layout: Layout) -> Descent[lozo.State]:
    space = lozo.WindowSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh)
    return _descent(m, spec, space, _averaging(m))


def _descent(
    m: DescentSettings,
    spec: JobSpec,
    space: Space[B],
    optimizer: Optimizer,
    shape: Shape = EVEN,
    weighing: Weighing | None = None,
) -> Descent[B]:
    """What all descents take from their settings alike; `weighing` where the method has its own."""
    return Descent(
        space=space,
        estimator=weighing or Estimator(m.estimator, m.eps, m.queries),
        optimizer=optimizer,
        schedule=Schedule(m.learning_rate, m.schedule, m.warmup_steps, spec.steps),
        clip=m.clip,
        weight_decay=m.weight_decay,
        shape=shape,
    )
