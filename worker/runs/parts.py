"""What recipes of several methods take from their settings alike. Knows no method's own."""

from db.contract.methods.activation_basis import ActivationBasis
from db.contract.methods.base import HalvesSettings, MethodSettings
from db.contract.methods.dizo import Dizo
from db.contract.methods.es import Es
from db.contract.methods.forward_grad import ForwardGrad
from db.contract.methods.fzoo import Fzoo
from db.contract.methods.kerzoo import Kerzoo
from db.contract.methods.mezo import Mezo
from db.contract.methods.senszoq import Senszoq
from db.contract.methods.sign import Sign
from db.contract.spec import JobSpec
from worker.types import Layout
from worker.zo.optimizers import Adam, Amsgrad, Momentum, Optimizer, Sgd
from worker.zo.schedules import Schedule
from worker.zo.shapes import EVEN, Halves, Shape


def optimizer(
    m: Mezo | Dizo | Sign | Fzoo | Es | Kerzoo | ForwardGrad | Senszoq | ActivationBasis,
) -> Optimizer:
    match m.optimizer:
        case "momentum":  # ZO-SGD-MMT accumulates
            return Momentum(m.momentum)
        case "adam":
            return Adam(m.momentum, m.beta2)
        case "amsgrad":
            return Amsgrad(m.momentum, m.beta2)
        case "sgd" | "scalar":
            return Sgd()


def schedule(m: MethodSettings, spec: JobSpec) -> Schedule:
    return Schedule(m.learning_rate, m.schedule, m.warmup_steps, spec.steps)


def halves(m: HalvesSettings, layout: Layout) -> Shape:
    return factored(m.a_factor, layout) if not m.a_from else Halves(layout, m.a_factor, m.a_from)


def factored(a: float, layout: Layout) -> Shape:
    """A's entries times `a`, at every step."""
    return EVEN if a == 1 else Halves(layout, a)
