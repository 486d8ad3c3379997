"""From a job's spec to its method and layout: the one place that knows both vocabularies. Knows no engine."""

from db.contract.methods.lozo import Lozo
from db.contract.methods.mezo import Mezo
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.types import Layout, Module
from worker.zo.descent import Descent, Space
from worker.zo.estimators import Estimator
from worker.zo.method import Method, State
from worker.zo.methods.lozo import WindowSpace
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.optimizers import Adam, Momentum, Optimizer, Sgd
from worker.zo.schedules import Schedule


def layout(spec: JobSpec, base: Base) -> Layout:
    """The adapter of `spec` on `base`: modules that a target names, in model order. Raises UnknownTarget."""
    modules = tuple(Module(*linear) for linear in base.select(spec.adapter.targets))
    return Layout(spec.adapter.rank, spec.adapter.alpha, modules, spec.adapter.invocation)


def method(spec: JobSpec, layout: Layout) -> Method[State]:
    """The method of `spec` on an adapter of this layout."""
    m = spec.method
    return Descent(
        space=_space(m, spec.seed, layout),
        estimator=Estimator(m.estimator, m.eps, m.queries),
        optimizer=_optimizer(m),
        schedule=Schedule(m.learning_rate, m.schedule, m.warmup_steps, spec.steps),
        clip=m.clip,
        weight_decay=m.weight_decay,
    )


def _space(m: Mezo | Lozo, seed: int, layout: Layout) -> Space:
    match m:
        case Mezo():
            return AdapterSpace(layout, seed)
        case Lozo():
            return WindowSpace(layout, seed, m.window_rank, m.nu, m.refresh)


def _optimizer(m: Mezo | Lozo) -> Optimizer:
    match m.optimizer:
        case "sgd":
            return Sgd()
        case "momentum":  # LOZO-M averages, ZO-SGD-MMT accumulates
            return Momentum(m.momentum, dampening=m.momentum if isinstance(m, Lozo) else 0.0)
        case "adam":
            return Adam(m.momentum, m.beta2)
