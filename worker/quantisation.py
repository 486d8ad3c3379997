"""What a checkpoint's format is, and how far a right engine may be from the oracle on it. Knows no tensor."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Nats, over a few hundred tokens. Measured on tiny models and on SmolLM2-135M: 5e-6 and 4e-5, 8e-3 and 0.055, 0.06 and
# 0.43.
TOLERANCES = {"float32": 1e-4, "float": 1e-4, "float16": 0.15, "half": 0.15, "bfloat16": 1.0}
# Where inputs are rounded too, a value near a tie rounded the other way moves its whole row, layer after layer.
# Tiny models stay within 0.1; SmolLM2-135M in W8A8 (1.4) and fp8 (2.1) does not pass, and should not: at eps 1e-2 the
# error of L+ - L- is 2.7 and 2.1 times the signal (bench/results/quantised.json).
ROUNDED_INPUTS = 0.5


def quantisation_of(path: str | Path) -> Mapping[str, Any] | None:
    """`quantization_config` of a folder's config.json, or None for a plain model."""
    config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    found = config.get("quantization_config")
    return found if isinstance(found, dict) else None


def rounded_inputs(quantisation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a format rounds the inputs of its linears; None where it does not."""
    group: Mapping[str, Any] = next(iter((quantisation.get("config_groups") or {}).values()), {})
    found = group.get("input_activations")
    return found if isinstance(found, dict) else None


def tolerance(path: str | Path, dtype: str) -> float:
    """How far a right engine's log-probabilities may be from the oracle's on the same folder, nats."""
    return max(TOLERANCES[dtype], ROUNDED_INPUTS if rounded_inputs(quantisation_of(path) or {}) else 0.0)


def remark(path: str | Path) -> str:
    """What to add to a failed check of a base whose format rounds more than weights; otherwise nothing."""
    if not rounded_inputs(quantisation_of(path) or {}):
        return ""
    return "; its format rounds the inputs of linears to 8 bits, which drowns small differences of losses"
