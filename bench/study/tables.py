"""The study as a page of tables, from its JSON alone. Knows no engine; what no cell has measured it says."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.study.figures import (
    CHOICE,
    NOISE,
    Key,
    Mean,
    Reached,
    choice,
    chosen,
    grouped,
    loss_at,
    mean,
    to_drop,
    to_target,
)
from bench.study.grid import LINES
from bench.study.lines import BARE, DROPS, SEEDS, TARGETS, TASKS, objective_of
from bench.study.rows import DEV, FEWER, REPORT
from bench.study.store import Measured, Study

UNKNOWN = "not measured"
HEAD, TAIL = ((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("head.md", "tail.md"))
# Processor seconds, by objective and activation.
COSTS: Final[Mapping[tuple[str, str], tuple[float, ...]]] = {
    ("choice", "answer"): (8.0, 16.0, 26.0),
    ("choice", "all"): (20.0, 40.0, 60.0),
    ("lm", "answer"): (20.0, 40.0, 60.0),
    ("lm", "all"): (20.0, 40.0, 60.0),
}
WORDS: Final[Mapping[str, str]] = {"choice": "Classification", "lm": "Chat"}
Own = Mapping[Key, Mapping[str, Sequence[Measured]]]  # of one objective and activation


def page(study: Study, *, whole: bool = True) -> str:
    """The page, with all that is not measured unless it is not to be the `whole`."""
    found = grouped(study)
    rows = {"dev": DEV, "report": REPORT, "few_dev": FEWER[0], "few": FEWER[1], "noise": 2 * NOISE}
    seconds = {"choice": CHOICE["choice", "answer"], "later": CHOICE["lm", "all"]}
    head = HEAD.format(**rows, **seconds, targets=TARGETS, bare=BARE)
    parts = [head.rstrip(), *_machines(study)]
    for objective, activation in COSTS:
        parts += ["", f"## {WORDS[objective]}, activation `{activation}`"]
        own = {key: by_task for key, by_task in found.items() if _kind(by_task) == (objective, activation)}
        if not own:
            parts += ["", f"{UNKNOWN.capitalize()}."]
            continue
        tasks = [task for task in _tasks(objective) if any(task in by_task for by_task in own.values())]
        parts += [*_targets(study, own, objective), *_losses(own, tasks), *_ends(own, tasks), *_drifts(own, tasks)]
        parts += [*_profiles(own), *_choices(study, own)]
    return "\n".join([*parts, *(_missing(study) if whole else ())]) + "\n"


def _kind(by_task: Mapping[str, Sequence[Measured]]) -> tuple[str, str]:
    cell = next(iter(by_task.values()))[0]
    return objective_of(cell.task), cell.activation


def _tasks(objective: str) -> tuple[str, ...]:
    return TASKS["lm" if objective == "lm" else "choice"]


def _machines(study: Study) -> Iterator[str]:
    yield ""
    for number, machine in enumerate(study.machines):
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        threads = machine.get("threads") or "all"
        yield (
            f"Machine {number}: {machine['cpu']}, {machine['cores']} cores, {threads} engine threads, Python "
            f"{machine['python']}; {versions}; first used {machine['date'][:10]}."
        )


def _targets(study: Study, own: Own, objective: str) -> Iterator[str]:
    """The best line of every family beside each other."""
    yield from ("", "### Processor seconds to a loss, prompts counted: the best line of each family", "")
    tasks, absolute = _tasks(objective), list(TARGETS) if objective == "choice" else []
    columns = [f"{task}, to {TARGETS[name][task]}" for task in tasks for name in absolute]
    columns += [f"{task}, {DROPS[name][task]} down" for task in tasks for name in DROPS]
    yield from _head("family", "line", "autograd", *columns)
    best = {key: family for (family, *_), key in chosen(study, "family").items() if key in own}
    for key, family in sorted(best.items(), key=lambda item: item[1]):
        by_task = own[key]
        cells = [to_target(by_task[task], TARGETS[name][task]) for task in tasks for name in absolute]
        cells += [to_drop(by_task[task], DROPS[name][task]) for task in tasks for name in DROPS]
        yield _row(family, key[0], "yes" if by_task[tasks[0]][0].autograd else "no", *map(_reached, cells))


def _losses(own: Own, tasks: Sequence[str]) -> Iterator[str]:
    yield from ("", "### Held-out loss on the reported rows after so many processor seconds, prompts counted", "")
    costs = COSTS[_kind(next(iter(own.values())))]
    yield from _head("line", *(f"{task}, {cost:.0f} s" for task in tasks for cost in costs))
    for (line, _), by_task in own.items():
        cells = [
            _mean(mean(loss_at(c.points, cost, "report") for c in by_task[task])) if task in by_task else UNKNOWN
            for task in tasks
            for cost in costs
        ]
        yield _row(line, *cells)
    yield from ("", "A run that ended before has its last loss there.")


ENDS: Final = (
    *("line", "loss", "accuracy", "steps", "forwards", "tokens"),
    *("seconds", "prompts", "wall", "MiB", "seeds", "end"),
)


def _ends(own: Own, tasks: Sequence[str]) -> Iterator[str]:
    """ZO-Bench's table, and what it leaves out."""
    for task in tasks:
        yield from ("", f"### The end of each line: {task}", "")
        yield from _head(*ENDS)
        for (line, _), by_task in own.items():
            if task in by_task:
                yield _end(line, by_task[task])
            else:
                yield _row(line, UNKNOWN, *[""] * 10)


def _end(line: str, cells: Sequence[Measured]) -> str:
    last = [cell.points[-1] for cell in cells]
    ended = ", ".join(dict.fromkeys(cell.ended for cell in cells))
    return _row(
        line,
        _mean(mean(p.report[0] for p in last)),
        _mean(mean(p.report[1] for p in last)),
        *(f"{mean(values).value:.0f}" for values in ([p.step for p in last], [p.forwards for p in last])),
        f"{mean(p.tokens for p in last).value:,.0f}",
        *(f"{mean(values).value:.1f}" for values in ([p.seconds for p in last], [p.prompts for p in last])),
        f"{mean(p.wall for p in last).value:.0f} s",
        f"{max(cell.memory for cell in cells):.0f}",
        ", ".join(str(cell.seed) for cell in cells),
        ended,
    )


def _drifts(own: Own, tasks: Sequence[str]) -> Iterator[str]:
    """How far each line has gone from the base, once a cell of the kind has measured it."""
    if all(cell.drift is None for by_task in own.values() for cells in by_task.values() for cell in cells):
        return
    yield from ("", "### Drift at the end: mean KL to the base on text of neither task, nats a token", "")
    yield from _head("line", *tasks)
    for (line, _), by_task in own.items():
        found = [[c.drift for c in by_task.get(task, ()) if c.drift is not None] for task in tasks]
        yield _row(line, *(_mean(mean(values)) if values else UNKNOWN for values in found))


def _profiles(own: Own) -> Iterator[str]:
    """What profiles were made as and what that took, once a cell of the kind has read one."""
    known = {
        cell.profile["sha256"]: (task, cell.profile)
        for by_task in own.values()
        for task, cells in by_task.items()
        for cell in cells
        if cell.profile is not None
    }
    if not known:
        return
    yield from ("", "### Profiles: what making one took, in no figure above", "")
    yield from _head("profile", "task", "made as", "processor seconds", "its maker said")
    for sha256, (task, told) in sorted(known.items(), key=lambda item: (item[1][1]["kind"], item[1][0])):
        flat = {**told, **told.get("plan", {})}
        made = ", ".join(f"{k} {v}" for k, v in flat.items() if k not in ("seconds", "said", "sha256", "plan"))
        yield _row(sha256[:12], task, made, f"{told['seconds']:.1f}", "; ".join(told["said"]).replace("|", "\\|"))


def _choices(study: Study, own: Own) -> Iterator[str]:
    """What was tried and what was taken, with the settings."""
    cost = CHOICE[_kind(next(iter(own.values())))]
    yield from ("", f"### Chosen on the development rows: loss after {cost:.0f} s, with twice its standard error", "")
    yield from _head("family", "line", "loss", "taken", "settings")
    best = set(chosen(study, "family").values())
    rows = []
    for key, by_task in own.items():
        cell = next(iter(by_task.values()))[0]
        worth = choice(by_task)
        rows.append((cell.family, worth, key, cell))
    for family, worth, key, cell in sorted(rows, key=lambda row: (row[0], row[1] is None, row[1] or 0.0)):
        taken = "yes" if key in best else ""
        yield _row(family, key[0], "none" if worth is None else f"{worth:.3f}", taken, _settings(cell))


def _settings(cell: Measured) -> str:
    asked = cell.asked
    unsaid = ("name", "momentum", "beta2", "warmup_steps", "weight_decay", "profile")
    method = {k: v for k, v in asked["method"].items() if k not in unsaid and v is not None}
    shape = {"steps": asked["steps"], "batch_size": asked["batch_size"], "repeat": asked["repeat"]}
    return ", ".join(f"{k} {v}" for k, v in {**shape, **method}.items())


def _missing(study: Study) -> Iterator[str]:
    yield from ("", "## Not measured", "")
    for line in LINES:
        names = {task: f"{line.name} / {line.activation} / {task} / seed " for task in TASKS[line.objective]}
        left = {task: [s for s in SEEDS if f"{name}{s}" not in study.cells] for task, name in names.items()}
        said = [f"{task} seed {', '.join(map(str, seeds))}" for task, seeds in left.items() if seeds]
        if said:
            yield f"* {line.name}, {line.activation}: {'; '.join(said)}"
    yield from ("", TAIL.rstrip())


def _mean(found: Mean) -> str:
    return f"{found.value:.3f}" + (f" ± {found.spread:.3f}" if found.spread is not None else "")


def _reached(found: Reached) -> str:
    if found.seconds is None:
        return f"never ({found.of} seeds)" if found.of > 1 else "never"
    spread = f" ± {found.seconds.spread:.1f}" if found.seconds.spread is not None else ""
    some = f" ({found.n} of {found.of} seeds)" if found.n < found.of else ""
    return f"{found.seconds.value:.1f}{spread}{some}"


def _head(*columns: str) -> Iterator[str]:
    yield _row(*columns)
    yield "|" + "---|" * len(columns)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
