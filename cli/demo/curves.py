"""Loss curves as a PNG. Knows numbers only."""

from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Sequence[tuple[int, float]]  # step, loss
Evaluations = Sequence[tuple[int, float, float]]  # step, held-out loss, accuracy


def draw(curves: Mapping[str, tuple[Points, Evaluations]], path: Path) -> Path:
    """One panel a job: training loss (faint, and its running mean), held-out loss, and accuracy on the right axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(6.5 * len(curves), 4.2), squeeze=False)
    for panel, (name, (training, held)) in zip(panels[0], curves.items(), strict=True):
        steps = [step for step, _ in training]
        panel.plot(steps, [loss for _, loss in training], color="tab:blue", alpha=0.2, linewidth=0.8)
        panel.plot(steps, running_mean([loss for _, loss in training]), color="tab:blue", label="training loss")
        panel.plot([p[0] for p in held], [p[1] for p in held], "o-", color="tab:orange", label="held-out loss")
        panel.set(title=name, xlabel="step", ylabel="loss (nats)")
        right = panel.twinx()
        right.plot([p[0] for p in held], [p[2] for p in held], "s--", color="tab:green", label="held-out accuracy")
        right.set(ylabel="accuracy", ylim=(0, 1))
        lines = panel.get_lines()[1:] + right.get_lines()
        panel.legend(lines, [line.get_label() for line in lines], loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def running_mean(values: Sequence[float], over: int = 25) -> list[float]:
    """The mean of each value and up to `over` - 1 before it."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [(sums[i + 1] - sums[max(0, i + 1 - over)]) / min(i + 1, over) for i in range(len(values))]
