"""Why a request is refused, in its own words. Knows no rule and no HTTP."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """What a tenant is told: `field` is the path of the request's field at fault, `code` is for programs."""

    field: str
    message: str
    code: str = "invalid_value"


class Unfit(ValueError):
    """A rule between fields of the contract that does not hold: `field` is the one at fault, by its bare name. Raised
    where pydantic validates, which hands it on in its own error."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = field, reason
