"""The hash of an adapter's parameters, as a journal's row ends with it. Pure; knows no disk."""

import hashlib

import numpy as np

from db.contract import journal_row
from worker.types import Params

NUMBERS = journal_row.DIGEST


def sha256(params: Params) -> str:
    """Of the flat vector as little-endian float32, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(params, dtype="<f4").tobytes()).hexdigest()


def numbers(params: Params) -> tuple[float, ...]:
    """The same as the row has it."""
    return journal_row.hashed(sha256(params))
