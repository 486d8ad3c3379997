"""From a job's spec to its method and layout: the one place that knows both vocabularies. Knows no engine."""

from typing import Any

from db.contract.methods.base import AdapterSettings, MethodSettings, ProbedSettings
from db.contract.methods.lozo import Lozo
from db.contract.methods.mezo import Mezo
from db.contract.methods.subzero import SubZero
from db.contract.methods.tezo import Tezo
from db.contract.methods.zo_muon import ZoMuon
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.types import Layout, Module
from worker.zo.descent import B, Descent, Space
from worker.zo.estimators import Estimator
from worker.zo.method import Method
from worker.zo.methods import lozo, mezo, subzero, tezo, zo_muon
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
            return _mezo(m, spec, layout)
        case "lozo":
            return _lozo(m, spec, layout)
        case "subzero":
            return _subzero(m, spec, layout)
        case "tezo":
            return _tezo(m, spec, layout)
        case "zo_muon":
            return _zo_muon(m, spec, layout)


def _mezo(m: Mezo, spec: JobSpec, layout: Layout) -> Descent[mezo.State]:
    optimizer: Optimizer
    match m.optimizer:
        case "sgd":
            optimizer = Sgd()
        case "momentum":  # ZO-SGD-MMT accumulates
            optimizer = Momentum(m.momentum)
        case "adam":
            optimizer = Adam(m.momentum, m.beta2)
    return _descent(m, spec, mezo.AdapterSpace(layout, spec.seed), optimizer, _halves(m, layout))


def _halves(m: AdapterSettings, layout: Layout) -> Shape:
    return EVEN if m.a_factor == 1 else Halves(layout, m.a_factor)


def _lozo(m: Lozo, spec: JobSpec, layout: Layout) -> Descent[lozo.State]:
    averages = m.optimizer == "momentum"  # LOZO-M
    optimizer = Momentum(m.momentum, dampening=m.momentum) if averages else Sgd()
    space = lozo.WindowSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh, m.scale)
    return _descent(m, spec, space, optimizer)


def _subzero(m: SubZero, spec: JobSpec, layout: Layout) -> Descent[subzero.State]:
    return _descent(m, spec, subzero.SubspaceSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh), Sgd())


def _tezo(m: Tezo, spec: JobSpec, layout: Layout) -> tezo.Temporal:
    inner: Optimizer
    match m.optimizer:
        case "sgd":
            inner = Sgd()
        case "momentum":  # TeZO-m averages
            inner = Momentum(m.momentum, dampening=m.momentum)
        case "adam":
            inner = Adam(m.momentum, m.beta2)
    space = tezo.FactorSpace(layout, spec.seed)
    estimator = Estimator(m.estimator, m.eps, m.queries)
    return tezo.Temporal(space, estimator, tezo.Spanned(space, inner), _schedule(m, spec), m.clip, m.weight_decay)


def _zo_muon(m: ZoMuon, spec: JobSpec, layout: Layout) -> Descent[zo_muon.State]:
    space = zo_muon.ProjectedSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh)
    estimator = Estimator("one_sided", m.eps, m.queries)
    return Descent(space, estimator, zo_muon.Muon(layout), _schedule(m, spec), weight_decay=m.weight_decay)


def _schedule(m: MethodSettings, spec: JobSpec) -> Schedule:
    return Schedule(m.learning_rate, m.schedule, m.warmup_steps, spec.steps)


def _descent(
    m: ProbedSettings, spec: JobSpec, space: Space[B], optimizer: Optimizer, shape: Shape = EVEN
) -> Descent[B]:
    """What all descents take from their settings alike."""
    return Descent(
        space=space,
        estimator=Estimator(m.estimator, m.eps, m.queries),
        optimizer=optimizer,
        schedule=_schedule(m, spec),
        clip=m.clip,
        weight_decay=m.weight_decay,
        shape=shape,
    )
