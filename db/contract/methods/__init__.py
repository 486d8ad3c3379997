"""Every method's settings: a union told apart by `name`. A new method is its own file, an import and an arm here.

Knows no arithmetic and no wire.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, get_args

from pydantic import Field, TypeAdapter

from db.contract.methods.activation_basis import ActivationBasis
from db.contract.methods.adamezo import Adamezo
from db.contract.methods.base import MethodSettings
from db.contract.methods.blockwise import Blockwise
from db.contract.methods.cons import Cons
from db.contract.methods.dizo import Dizo
from db.contract.methods.eggroll import Eggroll
from db.contract.methods.es import Es
from db.contract.methods.first_order import FirstOrder
from db.contract.methods.forward_grad import ForwardGrad
from db.contract.methods.fzoo import Fzoo
from db.contract.methods.guided import Guided
from db.contract.methods.hizoo import Hizoo
from db.contract.methods.hybrid import Hybrid
from db.contract.methods.kerzoo import Kerzoo
from db.contract.methods.lezo import Lezo
from db.contract.methods.lozo import Lozo
from db.contract.methods.mezo import Mezo
from db.contract.methods.random_search import RandomSearch
from db.contract.methods.senszoq import Senszoq
from db.contract.methods.sign import Sign
from db.contract.methods.sparse_mezo import SparseMezo
from db.contract.methods.subzero import SubZero
from db.contract.methods.svrg import Svrg
from db.contract.methods.tezo import Tezo
from db.contract.methods.zo_finetuner import ZoFinetuner
from db.contract.methods.zo_muon import ZoMuon

# The first is what a preset means where no method is named.
MethodSpec = Annotated[
    Mezo
    | Lozo
    | Adamezo
    | Sign
    | Fzoo
    | Es
    | Kerzoo
    | Cons
    | Hizoo
    | Guided
    | Svrg
    | Blockwise
    | Lezo
    | SparseMezo
    | Senszoq
    | Dizo
    | ZoFinetuner
    | ActivationBasis
    | SubZero
    | Tezo
    | ZoMuon
    | Eggroll
    | RandomSearch
    | FirstOrder
    | Hybrid
    | ForwardGrad,
    Field(discriminator="name"),
]
ARMS: Final[dict[str, type[MethodSettings]]] = {
    arm.model_fields["name"].default: arm for arm in get_args(get_args(MethodSpec)[0])
}
DEFAULT: Final = next(iter(ARMS))
# Every setting of any method beside its name, each once.
FIELDS: Final = tuple(dict.fromkeys(field for arm in ARMS.values() for field in arm.model_fields if field != "name"))
_UNION: Final[TypeAdapter[MethodSpec]] = TypeAdapter(MethodSpec)


def settings(**values: Any) -> MethodSpec:
    """The settings with these values, `name` among them. Raises pydantic's ValidationError."""
    return _UNION.validate_python(values)


def owners(field: str) -> tuple[str, ...]:
    """The methods that have a setting of this name."""
    return tuple(name for name, arm in ARMS.items() if field in arm.model_fields)


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a row has them, less those of other methods: release 0.1 wrote every method's into every row."""
    arm = ARMS.get(values.get("name", ""))
    foreign = set(FIELDS) - set(arm.model_fields) if arm is not None else set()
    return {field: value for field, value in values.items() if field not in foreign}
