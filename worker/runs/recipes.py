"""From a job's spec to its method and layout: the one place that knows both vocabularies. Knows no engine."""

from typing import Any

from db.contract.methods.base import AdapterSettings, DescentSettings, MethodSettings
from db.contract.methods.first_order import FirstOrder
from db.contract.methods.forward_grad import ForwardGrad
from db.contract.methods.hybrid import Hybrid
from db.contract.methods.lozo import Lozo
from db.contract.methods.mezo import Mezo
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.types import Layout, Module
from worker.zo.descent import B, Descent, Space
from worker.zo.estimators import Estimator
from worker.zo.method import Method
from worker.zo.methods import first_order, forward_grad, hybrid, lozo, mezo
from worker.zo.moving import Rule
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
        case "first_order":
            return _first_order(m, spec, layout)
        case "forward_grad":
            return _forward_grad(m, spec, layout)
        case "hybrid":
            return _hybrid(m, spec, layout)


def _mezo(m: Mezo, spec: JobSpec, layout: Layout) -> Descent[mezo.State]:
    return _descent(m, spec, mezo.AdapterSpace(layout, spec.seed), _optimizer(m), _halves(m, layout))


def _optimizer(m: Mezo | ForwardGrad) -> Optimizer:
    match m.optimizer:
        case "sgd":
            return Sgd()
        case "momentum":  # ZO-SGD-MMT accumulates
            return Momentum(m.momentum)
        case "adam":
            return Adam(m.momentum, m.beta2)


def _halves(m: AdapterSettings | ForwardGrad | Hybrid, layout: Layout) -> Shape:
    return EVEN if m.a_factor == 1 else Halves(layout, m.a_factor)


def _lozo(m: Lozo, spec: JobSpec, layout: Layout) -> Descent[lozo.State]:
    averages = m.optimizer == "momentum"  # LOZO-M
    optimizer = Momentum(m.momentum, dampening=m.momentum) if averages else Sgd()
    space = lozo.WindowSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh)
    return _descent(m, spec, space, optimizer)


def _first_order(m: FirstOrder, spec: JobSpec, layout: Layout) -> first_order.FirstOrder:
    return first_order.FirstOrder(layout, spec.seed, _rule(m, spec, Adam(m.momentum, m.beta2)), m.clip)


def _forward_grad(m: ForwardGrad, spec: JobSpec, layout: Layout) -> forward_grad.ForwardGrad:
    rule = _rule(m, spec, _optimizer(m))
    return forward_grad.ForwardGrad(layout, spec.seed, rule, m.queries, m.clip, _halves(m, layout))


def _hybrid(m: Hybrid, spec: JobSpec, layout: Layout) -> hybrid.Hybrid:
    below = Schedule(m.zo_learning_rate, m.schedule, m.warmup_steps, spec.steps)
    return hybrid.Hybrid(
        layout=layout,
        seed=spec.seed,
        since=2 * m.top([module.name for module in layout.modules]),
        top=_rule(m, spec, Adam(m.momentum, m.beta2)),
        below=Rule(Sgd(), below, m.weight_decay),
        estimator=Estimator(m.estimator, m.eps, m.queries),
        clip=m.clip,
        zo_clip=m.zo_clip,
        shape=_halves(m, layout),
    )


def _rule(m: MethodSettings, spec: JobSpec, optimizer: Optimizer) -> Rule:
    return Rule(optimizer, _schedule(m, spec), m.weight_decay)


def _schedule(m: MethodSettings, spec: JobSpec) -> Schedule:
    return Schedule(m.learning_rate, m.schedule, m.warmup_steps, spec.steps)


def _descent(
    m: DescentSettings, spec: JobSpec, space: Space[B], optimizer: Optimizer, shape: Shape = EVEN
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
