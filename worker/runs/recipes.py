"""From a job's spec to its method and layout: the one place that knows both vocabularies. Knows no engine."""

from typing import Any

from db.contract.methods.adamezo import Adamezo
from db.contract.methods.base import ProbedSettings
from db.contract.methods.blockwise import Blockwise
from db.contract.methods.dizo import Dizo
from db.contract.methods.eggroll import Eggroll
from db.contract.methods.es import Es
from db.contract.methods.fzoo import Fzoo
from db.contract.methods.kerzoo import Kerzoo
from db.contract.methods.lezo import Lezo
from db.contract.methods.lozo import Lozo
from db.contract.methods.mezo import Mezo
from db.contract.methods.probing import ProbingSettings
from db.contract.methods.random_search import RandomSearch
from db.contract.methods.sign import Sign
from db.contract.methods.sparse_mezo import SparseMezo
from db.contract.methods.subzero import SubZero
from db.contract.methods.svrg import Svrg
from db.contract.methods.tezo import Tezo
from db.contract.methods.zo_muon import ZoMuon
from db.contract.spec import JobSpec
from db.contract.tokens.architectures import layers
from db.contract.tokens.base_model import Base
from worker.runs import differentiated, parts, profiled
from worker.types import Layout, Module
from worker.zo.descent import B, Descent, Space
from worker.zo.estimators import Estimator, Signs, Standardised, Weighing
from worker.zo.method import Method
from worker.zo.methods import (
    adamezo,
    blockwise,
    cons,
    dizo,
    eggroll,
    eggroll_members,
    fzoo,
    guided,
    hizoo,
    kerzoo,
    lezo,
    lozo,
    meazo,
    mezo,
    random_search,
    sparse_mezo,
    subzero,
    svrg,
    tezo,
    zo_muon,
)
from worker.zo.optimizers import Adam, Momentum, Optimizer, Sgd
from worker.zo.shapes import EVEN, Both, Shape


def layout(spec: JobSpec, base: Base) -> Layout:
    """The adapter of `spec` on `base`: modules that a target names, in model order. Raises UnknownTarget."""
    modules = tuple(Module(*linear) for linear in base.select(spec.adapter.targets, spec.adapter.layers))
    return Layout(spec.adapter.rank, spec.adapter.alpha, modules, spec.adapter.invocation)


def method(spec: JobSpec, layout: Layout, restarts: int = 0, profile: bytes | None = None) -> Method[Any]:
    """The method of `spec` on an adapter of this layout, at half its rate for each of `restarts`, with the file of the
    `profile` that it names. Its state is its own: only it reads its fields. Raises ValueError for another file."""
    return _asked(spec, layout, profile).halved(restarts)


def _asked(spec: JobSpec, layout: Layout, profile: bytes | None) -> Method[Any]:
    m, entries = spec.method, mezo.AdapterSpace(layout, spec.seed)
    match m.name:
        case "mezo":
            return _mezo(m, spec, layout)
        case "lozo":
            return _lozo(m, spec, layout)
        case "blockwise" | "lezo" | "sparse_mezo" | "dizo":
            return _shaped(m, spec, layout)
        case "subzero":
            return _subzero(m, spec, layout)
        case "tezo":
            return _tezo(m, spec, layout)
        case "zo_muon":
            return _zo_muon(m, spec, layout)
        case "sign" | "fzoo" | "es" | "kerzoo":
            return _weighed(m, spec, layout)
        case "eggroll":
            return _eggroll(m, spec, layout)
        case "adamezo":
            return _adamezo(m, spec, layout)
        case "cons":
            return cons.Conservative(_pairs(m, spec, layout, entries, m.queries))
        case "hizoo":
            return hizoo.Hizoo(_pairs(m, spec, layout, hizoo.Curved(layout, spec.seed)), m.smoothing)
        case "guided":
            return guided.Guided(_pairs(m, spec, layout, entries), m.pool, m.pick)
        case "svrg":
            return _svrg(m, spec, layout)
        case "senszoq" | "activation_basis" | "zo_finetuner":
            return profiled.method(m, spec, layout, profile)
        case "random_search":
            return _random_search(m, spec, layout)
        case "first_order" | "forward_grad" | "hybrid":
            return differentiated.method(m, spec, layout)


def _shaped(m: Blockwise | Lezo | SparseMezo | Dizo, spec: JobSpec, layout: Layout) -> Method[Any]:
    entries = mezo.AdapterSpace(layout, spec.seed)
    match m.name:
        case "blockwise" if m.together:
            weighing = Estimator(m.estimator, m.eps, m.queries * m.blocks)
            each = blockwise.EachSpace(entries, m.blocks)
            return blockwise.summed(_descent(m, spec, each, Sgd(), parts.halves(m, layout), weighing), m.blocks)
        case "blockwise":
            shape = _then(parts.halves(m, layout), blockwise.Blocks(layout, m.blocks))
            return _descent(m, spec, entries, Sgd(), shape)
        case "lezo":
            return _descent(m, spec, entries, Sgd(), _then(parts.halves(m, layout), _random(m, spec.seed, layout)))
        case "sparse_mezo":
            small = sparse_mezo.SmallSpace(entries, m.density, m.mask_every)
            return _descent(m, spec, small, Sgd(), parts.halves(m, layout))
        case "dizo":
            started = dizo.StartedSpace(entries)
            descent = _descent(m, spec, started, parts.optimizer(m), parts.halves(m, layout))
            by = dizo.Projection(m.project_every, m.project_pairs, m.project_eps, m.project_rate, m.tau)
            return dizo.Dizo(descent, layout, spec.seed, by)


def _weighed(m: Sign | Fzoo | Es | Kerzoo, spec: JobSpec, layout: Layout) -> Descent[mezo.State]:
    draws = (fzoo.SignSpace if m.name == "fzoo" else mezo.AdapterSpace)(layout, spec.seed)
    return _descent(m, spec, draws, parts.optimizer(m), parts.halves(m, layout), _weighing(m, spec.seed))


def _mezo(m: Mezo, spec: JobSpec, layout: Layout) -> Descent[mezo.State]:
    descent = _descent(m, spec, mezo.AdapterSpace(layout, spec.seed), parts.optimizer(m), parts.halves(m, layout))
    return meazo.Scaled(**vars(descent), beta=m.beta2) if m.optimizer == "scalar" else descent


def _adamezo(m: Adamezo, spec: JobSpec, layout: Layout) -> Descent[mezo.State]:
    descent = _descent(m, spec, mezo.AdapterSpace(layout, spec.seed), Sgd(), parts.halves(m, layout))
    return adamezo.Recomputed(**vars(descent), beta1=m.momentum, beta2=m.beta2, window=m.window)


def _pairs(m: ProbingSettings, spec: JobSpec, layout: Layout, space: Space[B], queries: int = 1) -> Descent[B]:
    """The plain descent, by pairs of probes, that a method of several phases or of more probes rests on."""
    return Descent(
        space=space,
        estimator=Estimator("two_point", m.eps, queries),
        optimizer=Sgd(),
        schedule=parts.schedule(m, spec),
        clip=m.clip,
        weight_decay=m.weight_decay,
        shape=parts.halves(m, layout),
    )


def _svrg(m: Svrg, spec: JobSpec, layout: Layout) -> svrg.Svrg:
    space = svrg.AnchoredSpace(mezo.AdapterSpace(layout, spec.seed))
    descent = _pairs(m, spec, layout, space, m.queries)
    by = svrg.Anchoring(m.anchor_rows, m.anchor_every, m.anchor_queries, m.anchor_factor)
    return svrg.Svrg(**vars(descent), anchoring=by)


def _random_search(m: RandomSearch, spec: JobSpec, layout: Layout) -> random_search.RandomSearch:
    space = mezo.AdapterSpace(layout, spec.seed)
    schedule = parts.schedule(m, spec)
    return random_search.RandomSearch(space, m.candidates, schedule, parts.factored(m.a_factor, layout))


def _then(first: Shape, second: Shape) -> Shape:
    return second if first is EVEN else Both(first, second)


def _random(m: Lezo, seed: int, layout: Layout) -> Shape:
    if m.by == "entries":
        return lezo.Entries(layout, seed, m.density, m.mask_every)
    ranges = layers([module.name for module in layout.modules])
    return lezo.Layers(layout, seed, m.density, m.mask_every, ranges)


def _lozo(m: Lozo, spec: JobSpec, layout: Layout) -> Descent[lozo.State]:
    space = lozo.WindowSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh, m.scale)
    return _descent(m, spec, space, _averaging(m))


def _eggroll(m: Eggroll, spec: JobSpec, layout: Layout) -> Method[Any]:
    weighing, seed, r = eggroll.weighing(m.eps, m.queries, m.window_rank), spec.seed, m.window_rank
    if m.members == "own":
        return eggroll_members.Members(layout, seed, r, weighing, parts.schedule(m, spec), m.clip, m.weight_decay)
    return _descent(m, spec, lozo.WindowSpace(layout, seed, r, m.nu, m.refresh), _averaging(m), weighing=weighing)


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
    return tezo.Temporal(space, estimator, tezo.Spanned(space, inner), parts.schedule(m, spec), m.clip, m.weight_decay)


def _zo_muon(m: ZoMuon, spec: JobSpec, layout: Layout) -> Descent[zo_muon.State]:
    space = zo_muon.ProjectedSpace(layout, spec.seed, m.window_rank, m.nu, m.refresh)
    estimator = Estimator("one_sided", m.eps, m.queries)
    return Descent(space, estimator, zo_muon.Muon(layout), parts.schedule(m, spec), weight_decay=m.weight_decay)


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


def _descent(
    m: ProbedSettings,
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
        schedule=parts.schedule(m, spec),
        clip=m.clip,
        weight_decay=m.weight_decay,
        shape=shape,
    )
