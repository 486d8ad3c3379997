"""From a job's spec to its method and layout: the one place that knows both vocabularies. Knows no engine."""

from typing import Any

from db.contract.methods.adamezo import Adamezo
from db.contract.methods.base import AdapterSettings, DescentSettings, MethodSettings
from db.contract.methods.lozo import Lozo
from db.contract.methods.mezo import Mezo
from db.contract.methods.probing import FactoredSettings, ProbingSettings
from db.contract.methods.random_search import RandomSearch
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.types import Layout, Module
from worker.zo.descent import B, Descent, Space
from worker.zo.estimators import Estimator
from worker.zo.method import Method
from worker.zo.methods import adamezo, cons, guided, hizoo, lozo, meazo, mezo, random_search
from worker.zo.optimizers import Adam, Amsgrad, Momentum, Optimizer, Sgd
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
        case "adamezo":
            return _adamezo(m, spec, layout)
        case "cons":
            return cons.Conservative(_pairs(m, spec, layout, mezo.AdapterSpace(layout, spec.seed), m.queries))
        case "hizoo":
            return hizoo.Hizoo(_pairs(m, spec, layout, hizoo.Curved(layout, spec.seed)), m.smoothing)
        case "guided":
            return guided.Guided(_pairs(m, spec, layout, mezo.AdapterSpace(layout, spec.seed)), m.pool, m.pick)
        case "random_search":
            return _random_search(m, spec, layout)


def _mezo(m: Mezo, spec: JobSpec, layout: Layout) -> Descent[mezo.State]:
    optimizer: Optimizer
    match m.optimizer:
        case "sgd":
            optimizer = Sgd()
        case "momentum":  # ZO-SGD-MMT accumulates
            optimizer = Momentum(m.momentum)
        case "adam":
            optimizer = Adam(m.momentum, m.beta2)
        case "amsgrad":
            optimizer = Amsgrad(m.momentum, m.beta2)
        case "scalar":
            optimizer = Sgd()
    descent = _descent(m, spec, mezo.AdapterSpace(layout, spec.seed), optimizer, _halves(m, layout))
    return meazo.Scaled(**vars(descent), beta=m.beta2) if m.optimizer == "scalar" else descent


def _adamezo(m: Adamezo, spec: JobSpec, layout: Layout) -> Descent[mezo.State]:
    descent = _descent(m, spec, mezo.AdapterSpace(layout, spec.seed), Sgd(), _halves(m, layout))
    return adamezo.Recomputed(**vars(descent), beta1=m.momentum, beta2=m.beta2, window=m.window)


def _pairs(m: ProbingSettings, spec: JobSpec, layout: Layout, space: Space[B], queries: int = 1) -> Descent[B]:
    """The plain descent, by pairs of probes, that a method of several phases or of more probes rests on."""
    return Descent(
        space=space,
        estimator=Estimator("two_point", m.eps, queries),
        optimizer=Sgd(),
        schedule=_schedule(m, spec),
        clip=m.clip,
        weight_decay=m.weight_decay,
        shape=_factored(m, layout),
    )


def _random_search(m: RandomSearch, spec: JobSpec, layout: Layout) -> random_search.RandomSearch:
    space = mezo.AdapterSpace(layout, spec.seed)
    return random_search.RandomSearch(space, m.candidates, _schedule(m, spec), _factored(m, layout))


def _schedule(m: MethodSettings, spec: JobSpec) -> Schedule:
    return Schedule(m.learning_rate, m.schedule, m.warmup_steps, spec.steps)


def _factored(m: FactoredSettings, layout: Layout) -> Shape:
    return EVEN if m.a_factor == 1 else Halves(layout, m.a_factor)


def _halves(m: AdapterSettings, layout: Layout) -> Shape:
    return EVEN if m.a_factor == 1 else Halves(layout, m.a_factor)


def _lozo(m: Lozo, spec: JobSpec, layout: Layout) -> Descent[lozo.State]:
    averages = m.optimizer == "momentum"  # LOZO-M
    optimizer = Momentum(m.momentum, dampening=m.momentum) if averages else Sgd()
    space = lozo.WindowSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh)
    return _descent(m, spec, space, optimizer)


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
