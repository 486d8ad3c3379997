"""What ten minutes teach, by method: the README's table, from the study's JSON. Knows no engine."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench.study.figures import Key, chosen, grouped, mean
from bench.study.store import Measured, Study
from db.contract import methods

UNKNOWN: Final = "not measured"
BEGIN, END = "<!-- what ten minutes teach -->", "<!-- /what ten minutes teach -->"
HEAD: Final = (
    "method",
    "sentiment: loss, accuracy",
    "topic: loss, accuracy",
    "seconds",
    "chat: loss, tokens right",
    "seconds ",
)
Found = Mapping[str, Sequence[Measured]]


def put(readme: str, study: Study) -> str:
    """The README with its table made anew. Raises ValueError where it has no place for one."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the README has no {BEGIN} ... {END}")
    return before + table(study) + after


def table(study: Study) -> str:
    """Every method's best line of classification with activation `answer` and of chat (the one of its activations
    that ends lower), at its end: means over seeds, one seed where no spread is said."""
    found, best = grouped(study), chosen(study, "method")

    def of(method: str, objective: str, *activations: str) -> Found | None:
        keys: list[Key] = [best[method, objective, a] for a in activations if (method, objective, a) in best]
        return min((found[key] for key in keys), key=_end, default=None)

    rows = [(m, of(m, "choice", "answer"), of(m, "lm", "answer", "all")) for m in methods.ARMS]
    rows.sort(key=lambda row: (row[1] is None, _end(row[1]) if row[1] else 0.0))
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD), f"| `bare base` | {' | '.join(_bare(rows))} |"]
    lines += [f"| `{method}` | {' | '.join([*_choice(choice), *_chat(talk)])} |" for method, choice, talk in rows]
    return "\n".join([BEGIN, *lines, END])


def _end(by_task: Found) -> float:
    return mean(cell.points[-1].report[0] for cells in by_task.values() for cell in cells).value


def _bare(rows: Sequence[tuple[str, Found | None, Found | None]]) -> Iterator[str]:
    choice = next((one for _, one, _ in rows if one), None)
    talk = next((one for *_, one in rows if one), None)
    for by_task, tasks in ((choice, ("sentiment", "topic")), (talk, ("chat",))):
        for task in tasks:
            start = by_task[task][0].points[0].report if by_task else None
            yield UNKNOWN if start is None else f"{start[0]:.2f}, {start[1]:.2f}"
        yield "0"


def _choice(by_task: Found | None) -> list[str]:
    if by_task is None:
        return [UNKNOWN, UNKNOWN, ""]
    return [_said(by_task["sentiment"]), _said(by_task["topic"]), _seconds(by_task)]


def _chat(by_task: Found | None) -> list[str]:
    return [UNKNOWN, ""] if by_task is None else [_said(by_task["chat"]), _seconds(by_task)]


def _said(cells: Sequence[Measured]) -> str:
    loss, accuracy = (mean(cell.points[-1].report[i] for cell in cells) for i in (0, 1))
    spread = f" ± {loss.spread:.2f}" if loss.spread is not None else ""
    return f"{loss.value:.2f}{spread}, {accuracy.value:.2f}"


def _seconds(by_task: Found) -> str:
    return f"{mean(cell.points[-1].cost for cells in by_task.values() for cell in cells).value:.0f}"
