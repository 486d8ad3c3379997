"""`python -m bench.study.sparsity [--threads N] [--out FILE]`: what is lost, or won, when a step moves a part of B.

A random part of the layers (`lezo`), a random part of each tensor's entries (`lezo` by entries) and each tensor's
smallest entries (`sparse_mezo`), at sparsities up to 0.9 (sparsity 1 - `density`), beside MeZO's population of 16 that
moves all. The rate makes the first move as long as MeZO's at 0.15: of a random part d both the slope along noise and
the noise's length are the square root of d times as large, so 0.15 / d; `sparse_mezo`'s first mask has all of B, which
begins at 0, so 0.15 whatever d. Losses are of held-out rows that nothing was chosen on.
"""

from typing import Any, Final

from bench.study import small
from bench.study.grid import CLIP, POPULATION, SMOLLM2, B
from bench.study.lines import Line

SPARSITIES: Final = (0.25, 0.5, 0.75, 0.9)
RATE: Final = 0.15
SHAPE: Final = {"schedule": "linear", "targets": SMOLLM2["targets"], "batch_size": 4, "repeat": 4}


def lines() -> list[Line]:
    """One a part and sparsity, after the whole."""
    layers = [_random("layers", s) for s in SPARSITIES]
    entries = [_random("entries", s) for s in SPARSITIES]
    small_ones = [
        _line(f"smallest, sparsity {s:g}", "sparse_mezo", RATE, density=round(1 - s, 2), mask_every=8)
        for s in SPARSITIES
    ]
    return [_line("mezo, sparsity 0", "mezo", RATE), *layers, *entries, *small_ones]


def _random(by: str, sparsity: float) -> Line:
    density = round(1 - sparsity, 2)
    return _line(f"{by}, sparsity {sparsity:g}", "lezo", RATE / density, density=density, by=by)


def _line(name: str, method: str, rate: float, **fields: Any) -> Line:
    own = {**SHAPE, **POPULATION, **B, **CLIP, "learning_rate": rate}
    return Line(name, "sparsity", method, {**own, **fields}, (12, 24), budget=1e9)


def table(found: small.Cells) -> str:
    """What the file has, a row a line, both tasks beside each other."""
    return small.ends(found, {"bare base": lines()})


if __name__ == "__main__":
    small.main("sparsity", __doc__, lines(), small.DEMO, table)
