"""Recipes of methods that read a profile: what its file holds becomes a space or a shape."""

from typing import Any

import numpy as np

from db.contract.methods.activation_basis import ActivationBasis
from db.contract.methods.senszoq import Senszoq
from db.contract.methods.zo_finetuner import ZoFinetuner
from db.contract.spec import JobSpec
from worker.runs import parts, profiles
from worker.runs.profiles import BadProfile, Profile
from worker.types import Layout
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.learned import Networks
from worker.zo.method import Method
from worker.zo.methods import activation_basis, mezo, senszoq, zo_finetuner
from worker.zo.optimizers import Sgd
from worker.zo.shapes import Halves

Profiled = Senszoq | ActivationBasis | ZoFinetuner


def method(m: Profiled, spec: JobSpec, layout: Layout, data: bytes | None) -> Method[Any]:
    """The method of these settings with the profile that they name, whose file is `data`. Raises BadProfile, a
    ValueError, where that is not at hand, another one, or not of this adapter."""
    found = _found(m, layout, data)
    match m.name:
        case "senszoq":
            space = senszoq.BegunSpace(layout, spec.seed, found.start)
            return _descent(m, spec, space, senszoq.Masked(found.tensors["mask"]))
        case "activation_basis":
            rows = tuple(found.tensors[module.name] for module in layout.modules)
            return _descent(m, spec, activation_basis.BasisSpace(layout, spec.seed, rows), Halves(layout, 0.0))
        case "zo_finetuner":
            return zo_finetuner.ZoFinetuner(
                space=zo_finetuner.SizedSpace(mezo.AdapterSpace(layout, spec.seed), _sizes(found)),
                estimator=Estimator("two_point", m.eps, m.queries),
                optimizer=Sgd(),
                schedule=parts.schedule(m, spec),
                clip=m.clip,
                weight_decay=m.weight_decay,
                shape=parts.halves(m, layout),
            )


def _found(m: Profiled, layout: Layout, data: bytes | None) -> Profile:
    if data is None:
        raise BadProfile(f"the profile {m.profile} is not at hand")
    found = profiles.read(data)
    if found.of.sha256 != m.profile:
        raise BadProfile(f"it is the profile {found.of.sha256}, {m.profile} is wanted")
    if found.of.kind not in m.reads:
        raise BadProfile(f"the profile {m.profile} is of kind {found.of.kind}, which {m.name} does not read")
    if found.of.layout != profiles.fingerprint(layout):
        raise BadProfile(f"the profile {m.profile} is of an adapter of another rank, or on other modules")
    return found


def _descent(
    m: Senszoq | ActivationBasis, spec: JobSpec, space: mezo.AdapterSpace, shape: senszoq.Masked | Halves
) -> Descent[mezo.State]:
    return Descent(
        space=space,
        estimator=Estimator(m.estimator, m.eps, m.queries),
        optimizer=parts.optimizer(m),
        schedule=parts.schedule(m, spec),
        clip=m.clip,
        weight_decay=m.weight_decay,
        shape=shape,
    )


def _sizes(found: Profile) -> zo_finetuner.Sizes:
    if found.of.kind == "factors":
        return zo_finetuner.Fixed(found.tensors["factors"])
    return zo_finetuner.Learned(Networks(**{name: np.asarray(found.tensors[name]) for name in profiles.SHAPES["mlp"]}))
