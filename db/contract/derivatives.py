"""Whether a method that needs derivatives can run on a base now. Knows no worker's row."""

from db.contract.methods import MethodSpec
from db.contract.tokens.base_model import Base


def missing(method: MethodSpec, base: Base, registered: bool) -> str | None:
    """Why the method cannot run, None where it can: `registered` says that a worker of the base with the torch scorer
    is there."""
    if not method.autograd:
        return None
    if base.quantised:
        return f"'{method.name}' needs derivatives, which the quantised base {base.name} has not."
    if not registered:
        return f"'{method.name}' needs derivatives: no worker of {base.name} with the torch scorer is there now."
    return None
