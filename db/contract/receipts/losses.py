"""Losses as a receipt holds them: float64, exact, in one byte form. Knows no job."""

import base64
import binascii
from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np

from db.contract.receipts.refused import Refused

Widths = tuple[tuple[int, int], ...]  # (steps, losses of each of them), in order; neighbours differ
NAN = np.array(np.nan, dtype="<f8").view("<u8")  # of all NaNs the one that is written


def packed(losses: Sequence[Sequence[float]]) -> tuple[Widths, str]:
    """The widths of the steps, and base64 of all losses in order as little-endian float64."""
    widths = tuple((len(list(run)), width) for width, run in groupby(map(len, losses)))
    flat = np.array([loss for row in losses for loss in row], dtype="<f8")
    flat[np.isnan(flat)] = np.nan
    return widths, base64.b64encode(flat.tobytes()).decode()


def unpacked(widths: Widths, text: str) -> list[list[float]]:
    """The losses of each step. Raises Refused: `truncated` where losses miss, `losses` where they are no such form."""
    if any(steps < 1 or width < 1 for steps, width in widths):
        raise Refused("losses", "a step has at least one loss")
    if any(a[1] == b[1] for a, b in pairwise(widths)):
        raise Refused("losses", "steps of one width in a row are counted together")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("losses", f"the losses are no base64: {error}") from error
    if base64.b64encode(raw).decode() != text:
        raise Refused("losses", "the losses are base64 in another form than the one that is written")
    said = 8 * sum(steps * width for steps, width in widths)
    if len(raw) != said:
        raise Refused(
            "truncated" if len(raw) < said else "losses", f"its losses have {len(raw)} bytes, {said} are said"
        )
    flat = np.frombuffer(raw, dtype="<f8")
    if (flat.view("<u8")[np.isnan(flat)] != NAN).any():
        raise Refused("losses", "a loss that is not a number is written in another form")
    rows, at = [], 0
    for steps, width in widths:
        end = at + steps * width
        rows += flat[at:end].reshape(steps, width).tolist()
        at = end
    return rows
