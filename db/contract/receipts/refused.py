"""Why a receipt is not taken, by name. Knows names, no receipt."""

from typing import Final, Literal, get_args

Code = Literal[
    "not_json", "truncated", "not_canonical", "fields", "spec", "losses", "history", "parents",
    "unsigned", "unknown_key", "signature", "foreign_base", "foreign_rows", "profile", "hash",
]  # fmt: skip
CODES: Final[tuple[Code, ...]] = get_args(Code)


class Refused(ValueError):
    """A receipt that is not taken: `code` is one of CODES, the message says why in words."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message
