"""Recipes of methods that need derivatives of the loss: their jobs run where the torch scorer does."""

from typing import Any

from db.contract.methods.base import MethodSettings
from db.contract.methods.first_order import FirstOrder
from db.contract.methods.forward_grad import ForwardGrad
from db.contract.methods.hybrid import Hybrid
from db.contract.spec import JobSpec
from worker.runs import parts
from worker.types import Layout
from worker.zo.estimators import Estimator
from worker.zo.method import Method
from worker.zo.methods import first_order, forward_grad, hybrid
from worker.zo.moving import Rule
from worker.zo.optimizers import Adam, Optimizer, Sgd
from worker.zo.schedules import Schedule


def method(m: FirstOrder | ForwardGrad | Hybrid, spec: JobSpec, layout: Layout) -> Method[Any]:
    match m.name:
        case "first_order":
            return first(m, spec, layout)
        case "forward_grad":
            return forward(m, spec, layout)
        case "hybrid":
            return mixed(m, spec, layout)


def first(m: FirstOrder, spec: JobSpec, layout: Layout) -> first_order.FirstOrder:
    return first_order.FirstOrder(layout, spec.seed, _rule(m, spec, Adam(m.momentum, m.beta2)), m.clip)


def forward(m: ForwardGrad, spec: JobSpec, layout: Layout) -> forward_grad.ForwardGrad:
    rule = _rule(m, spec, parts.optimizer(m))
    return forward_grad.ForwardGrad(layout, spec.seed, rule, m.queries, m.clip, parts.factored(m.a_factor, layout))


def mixed(m: Hybrid, spec: JobSpec, layout: Layout) -> hybrid.Hybrid:
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
        shape=parts.factored(m.a_factor, layout),
    )


def _rule(m: MethodSettings, spec: JobSpec, optimizer: Optimizer) -> Rule:
    return Rule(optimizer, parts.schedule(m, spec), m.weight_decay)
