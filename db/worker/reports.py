"""What a tenant reads of a run's steps, evaluations and turns: events of what a worker commits. Knows no lease."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.orm import Session

from db import events
from db.contract import journal_row
from db.contract.history import Restart
from db.tables import Job

if TYPE_CHECKING:
    from db.worker.journal import Evaluated, Step

STOPPED: Final = {
    "diverged": "the held-out loss had left its start",
    "patience": "no evaluation was better than the best for as long as patience says",
}


def flushed(
    session: Session,
    job: Job,
    steps: Sequence["Step"],
    evaluations: Sequence["Evaluated"],
    restarts: Sequence[Restart],
) -> None:
    """Of one commit: each evaluation with the step that it was measured after, the last of the steps, and what is wrong
    with any of them. `job.step` is after them."""
    for evaluated in evaluations:
        if evaluated.step < job.step:
            _evaluated(session, job, evaluated)
    for restart in restarts:
        text = f"Went back to step {restart.origin} at step {restart.at}, and goes on from there at half the rate"
        events.write(session, job, text, "warn", {"step": restart.at, "origin": restart.origin})
    wild = [s.step + 1 for s in steps if not all(map(math.isfinite, s.losses))]
    if wild:
        text = f"Losses were not finite at {_numbers(wild)}: the adapter is left as it was"
        events.write(session, job, text, "warn", {"steps": wild[:100]})
    if steps:
        losses = journal_row.losses(steps[-1].losses, journal_row.method_of(job.spec))
        mean = math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else None
        _metrics(session, job, job.step, {"train_loss": mean})
    for evaluated in evaluations:
        if evaluated.step == job.step:
            _evaluated(session, job, evaluated)


def published(session: Session, job: Job, step: int, name: str, drift: float | None = None) -> None:
    """That the adapter of `step` is there: what step 0 has is no result of training. Its drift, where it was measured,
    is the last of the job's metrics."""
    if drift is not None:
        _metrics(session, job, step, {"drift": drift})
    text = f"Adapter of step {step} published as {name}"
    if step:
        events.write(session, job, text)
        return
    nothing = "its parent's" if job.spec.get("parent") else "the base model's answers"
    why = f"{text}: no step made the held-out loss lower, and this adapter changes nothing of {nothing}"
    events.write(session, job, why, "warn", {"step": 0})


def stopped(session: Session, job: Job, reason: str, best: int) -> None:
    """That the job ends before its last step; what it has not scored is not charged."""
    left = max(0, job.price_tokens - job.scored_tokens)
    text = (
        f"Stopped at step {job.step} of {job.total_steps}: {STOPPED[reason]}. Step {best} is published; "
        f"{left} scored tokens of the price are not charged"
    )
    data = {"reason": reason, "step": job.step, "best_step": best, "tokens_left": left}
    events.write(session, job, text, "warn" if reason == "diverged" else "info", data)


def _evaluated(session: Session, job: Job, evaluated: "Evaluated") -> None:
    finite = math.isfinite(evaluated.loss)
    measured = {
        "valid_loss": evaluated.loss if finite else None,
        "valid_mean_token_accuracy": evaluated.accuracy,
    }
    _metrics(session, job, evaluated.step, measured)
    if not evaluated.newly:
        return
    how = "is above its start by more than its own noise" if finite else "is not finite any more"
    loss = f", {evaluated.loss:.4g}," if finite else ""
    noise = evaluated.noise if evaluated.noise is not None and math.isfinite(evaluated.noise) else None
    error = f" (standard error of the difference: {noise:.2g})" if noise is not None else ""
    text = f"The held-out loss{loss} after step {evaluated.step} {how}{error}"
    data = {"step": evaluated.step, "valid_loss": measured["valid_loss"], "noise": noise}
    events.write(session, job, text, "warn", data)


def _metrics(session: Session, job: Job, step: int, measured: dict[str, float | None]) -> None:
    """What was measured after `step` steps; what is not finite, or was not measured, is None."""
    data: dict[str, Any] = {"step": step, "total_steps": job.total_steps, **measured}
    said = {n: "not finite" if v is None else f"{v:.4f}" for n, v in measured.items() if v is not None or "loss" in n}
    shown = ", ".join(f"{name}={text}" for name, text in said.items())
    events.metrics(session, job, f"Step {step}/{job.total_steps}: {shown}", data)


def _numbers(steps: Sequence[int]) -> str:
    """3; 3, 4 and 5; or 3, 4, 5 and others, 12 in all."""
    if len(steps) == 1:
        return f"step {steps[0]}"
    if len(steps) > 4:
        return f"steps {', '.join(map(str, steps[:3]))} and others, {len(steps)} in all"
    return f"steps {', '.join(map(str, steps[:-1]))} and {steps[-1]}"
