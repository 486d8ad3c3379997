"""`python -m bench.studies.noise`: how much of a projected gradient is signal and how much rounding.

By precision and radius.

The projected gradient of direction z is c = (L(theta + eps z) - L(theta - eps z)) / (2 eps). Its rounding error is the
difference from the same c by transformers and PEFT in float64; bfloat16 is held against the float32 engine, whose own
error is far smaller. Both activations, the demo's model and sentiment rows, a point away from the start.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report.measure import RESULTS

EPS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
EXACT = (1e-3, 1e-2)  # radii that float64 checks; rounding of a loss does not depend on the radius
DIRECTIONS, ROWS, AWAY = 8, 16, 0.02
Slopes = NDArray[np.float64]


def trials(base: Any, activation: str, eps: float, directions: int) -> list[Any]:
    """Both signs of every direction at one point, on the first ROWS sentiment rows."""
    import tempfile

    from bench.workloads import invocation_of
    from cli.demo.datasets import write
    from db.contract.presets import resolve
    from db.contract.spec import JobSpec
    from worker.runs import recipes
    from worker.runs.data import examples
    from worker.types import Trial

    with tempfile.TemporaryDirectory() as folder:
        raw = write(Path(folder))["sentiment_train"].read_bytes()
    ids = invocation_of(base, raw) if activation == "answer" else ()
    given = {"activation": activation, "invocation": ids, "seed": 0}
    spec = JobSpec(model=base.name, training_file="noise", **resolve(given, base, "choice", ROWS))
    layout = recipes.layout(spec, base)
    start, _ = recipes.method(spec, layout).init()
    rng = np.random.default_rng(0)
    point = start + np.float32(AWAY) * rng.standard_normal(layout.size).astype(np.float32)
    rows = examples(base, raw, ROWS, ids)
    made = []
    for _ in range(directions):
        z = rng.standard_normal(layout.size).astype(np.float32)
        made += [Trial(layout, point + np.float32(sign * eps) * z, rows, "choice") for sign in (1, -1)]
    return made


def slopes(scorer: Any, asked: list[Any], eps: float) -> Slopes:
    """The projected gradient of every direction [directions]."""
    losses = [loss.mean for loss in scorer.score(asked)]
    return np.array([(up - down) / (2 * eps) for up, down in zip(losses[::2], losses[1::2], strict=True)])


def measure(base: Any) -> dict[str, Any]:
    """Root mean squares over directions of the signal and of the rounding error, and the correlation of both dtypes."""
    from worker.oracle.torch_scorer import TorchScorer
    from worker.scoring.engine_scorer import EngineScorer

    found: dict[str, dict[tuple[str, float], Slopes]] = {}
    for dtype in ("float32", "bfloat16"):
        scorer = EngineScorer(str(base.source), dtype=dtype)
        found[dtype] = {
            (activation, eps): slopes(scorer, trials(base, activation, eps, DIRECTIONS), eps)
            for activation in ("all", "answer")
            for eps in EPS
        }
        scorer.close()
    oracle = TorchScorer(str(base.source), "float64")
    half = DIRECTIONS // 2
    error = {}
    for activation in ("all", "answer"):
        parts = []
        for eps in EXACT:
            exact = slopes(oracle, trials(base, activation, eps, half), eps)
            parts.append((found["float32"][activation, eps][:half] - exact) * 2 * eps)
        error[activation] = rms(np.concatenate(parts))  # of L+ - L-, in nats
    out: dict[str, Any] = {"float32 error of L+ - L-, nats": error}
    for activation in ("all", "answer"):
        for eps in EPS:
            full, low = found["float32"][activation, eps], found["bfloat16"][activation, eps]
            out[f"{activation}, eps {eps:g}"] = {
                "signal": rms(full),
                "rounding, float32": error[activation] / (2 * eps),
                "rounding, bfloat16": rms(low - full),
                "correlation of bfloat16 with float32": float(np.corrcoef(low, full)[0, 1]),
            }
    return out


def rms(x: Slopes) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def draw(found: dict[str, Any], path: Path) -> None:
    """Signal and rounding against eps, one panel an activation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for panel, activation in zip(panels, ("all", "answer"), strict=True):
        points = [found[f"{activation}, eps {eps:g}"] for eps in EPS]
        for name, style in (("signal", "k-o"), ("rounding, float32", "C0--s"), ("rounding, bfloat16", "C3--^")):
            panel.loglog(EPS, [p[name] for p in points], style, label=name)
        panel.set(title=f"activation {activation}", xlabel="probe radius eps")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("projected gradient, root mean square")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Prints the table, writes noise.json and noise.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    from worker.environment import prepare

    prepare(0, "bench.studies.noise")
    from bench.report.measure import machine
    from cli.local.demo_model import DEMO_MODEL, demo_model
    from db.contract.tokens.base_model import open_base

    base = open_base(DEMO_MODEL, str(demo_model(arguments.home)))
    found = measure(base)
    for name, figures in found.items():
        print(f"{name:<34}", "  ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "noise.json").write_text(json.dumps({**found, "machine": machine()}, indent=2) + "\n")
    draw(found, arguments.out / "noise.png")


if __name__ == "__main__":
    main()
