"""A base and files in, a profile out. Knows rows, a torch scorer and the kinds of profile; no SQL and no service."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub

from db.contract.methods.profiled import ProfileKind
from db.contract.objectives import training
from db.contract.refusal import Refusal
from db.contract.rows.files import format_of, parse
from db.contract.tokens import invocation
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import encode_rows
from worker.profiling import activations, fisher
from worker.profiling.landscape import Scored
from worker.profiling.meta import Plan, trained
from worker.runs import profiles
from worker.runs.data import examples
from worker.types import Example, Layout, Module
from worker.zo.methods.mezo import AdapterSpace

PROMPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Wanted:
    """What a profile is made for and from. `rank` and `targets` are those of the adapters that will read it, which act
    on the `last` layers alone where that is not 0. With an `invocation`, a text that every prompt has, they act from
    its last occurrence on. `rows` of the files are used at most. `share` is of a mask, `power` of factors, `plan` of
    networks; A starts from `seed`."""

    kind: ProfileKind
    rank: int
    targets: tuple[str, ...]
    invocation: str | None = None
    rows: int = 200
    share: float = 0.01
    power: float = 0.5
    plan: Plan = field(default_factory=Plan)
    seed: int = 0
    last: int = 0


@dataclass(frozen=True)
class Made:
    """The profile's file, and what was found on the way, a line each."""

    data: bytes
    said: tuple[str, ...]


def make(wanted: Wanted, base: Base, files: Sequence[bytes]) -> Made:
    """The profile for `base` from rows of these JSONL files, all of one format.

    Raises ValueError where they do not lead to one, BadRow, UnknownTarget, and CannotCompute."""
    acting = _invocation(wanted, base, files[0])
    seen = tuple(_examples(base, files, wanted.rows, acting))
    modules = tuple(Module(*linear) for linear in base.select(wanted.targets, _layers(wanted, base)))
    layout = Layout(wanted.rank, 2.0 * wanted.rank, modules, acting)
    tensors, said, about = _found(wanted, base, layout, seen, _objective(files))
    about |= {"rows": len(seen), "activation": "answer" if acting else "all", "seed": wanted.seed}
    data = profiles.written(wanted.kind, base.fingerprint, base.name, layout, tensors, wanted.seed, about)
    return Made(data, tuple(said))


def _found(
    wanted: Wanted, base: Base, layout: Layout, seen: Sequence[Example], objective: str
) -> tuple[profiles.Tensors, list[str], dict[str, Any]]:
    from worker.engine.prompt_cache import PromptCache
    from worker.oracle.dequantised import load_model
    from worker.oracle.torch_scorer import TorchScorer

    path = base.source if Path(base.source).is_dir() else huggingface_hub.snapshot_download(base.source)
    if wanted.kind == "basis":
        return dict(activations.basis(load_model(path).eval(), layout, seen)), [], {}
    kept: PromptCache[Any] = PromptCache(PROMPT_BYTES)
    scorer = TorchScorer(path, kept=kept)
    try:
        return measured(wanted, Scored(scorer, layout, seen, objective), layout)
    finally:
        scorer.close()


def measured(wanted: Wanted, landscape: Scored, layout: Layout) -> tuple[profiles.Tensors, list[str], dict[str, Any]]:
    """What a profile is made of from gradients, what to say of it, and what its file tells of its making."""
    if wanted.kind == "mlp":
        plan = wanted.plan
        found = trained(landscape, layout, plan)
        runs = [found.losses[i : i + plan.restart] for i in range(0, len(found.losses), plan.restart)]
        whole = [run for run in runs if len(run) == plan.restart] or runs
        first, last = (sum(run) / len(run) for run in (whole[0], whole[-1]))
        said = (
            f"mean loss of a run of {len(whole[0])} steps: {first:.4f} the first, {last:.4f} the last of {len(whole)}"
        )
        return found.tensors, [said], {"plan": asdict(plan)}
    params, _ = AdapterSpace(layout, wanted.seed).start()
    measures = fisher.measure(landscape, layout, params)
    lines = list(reported(measures, layout))
    if wanted.kind == "mask":
        return {"mask": fisher.mask(measures.fisher, wanted.share)}, lines, {"share": wanted.share}
    return {"factors": fisher.factors(measures, wanted.power)}, lines, {"power": wanted.power}


def reported(measures: fisher.Measures, layout: Layout) -> Iterator[str]:
    """What was measured, and the bound on what reweighting tensors can bring."""
    squared, trace = float(measures.squared.sum()), float(measures.trace.sum())
    yield f"over {measures.rows} rows: |g|^2 {squared:.4g} (by halves), trace of the Fisher information {trace:.4g}"
    try:
        found = fisher.bound(measures)
    except ValueError as error:
        yield f"no bound: {error}"
        return
    module, half = layout.modules[found.tensor // 2].name, "AB"[found.tensor % 2]
    gains = ", ".join(f"{gain:.2f} with p {power:g}" for power, gain in found.powers)
    yield f"reweighting tensors by (|g|^2 / tr F)^p gains, in a quadratic model, {gains}"
    yield f"and at most {found.best:.2f}, with all noise in {half} of {module}"


def _layers(wanted: Wanted, base: Base) -> tuple[int, ...]:
    if wanted.last > base.depth:
        raise ValueError(f"{base.name} has {base.depth} layers, not {wanted.last}")
    return tuple(range(base.depth - wanted.last, base.depth)) if wanted.last else ()


def _objective(files: Sequence[bytes]) -> str:
    """What the files' rows are trained for. Raises ValueError where their formats differ."""
    formats = {format_of(next(parse((raw,)))) for raw in files}
    if len(formats) > 1:
        raise ValueError(f"the files' rows are of different formats: {', '.join(sorted(formats))}")
    return training(formats.pop())[0].name


def _examples(base: Base, files: Sequence[bytes], most: int, acting: tuple[int, ...]) -> Iterator[Example]:
    """The first rows of each file, as many of one as of another, `most` in all."""
    each = -(-most // len(files))
    left = most
    for raw in files:
        for one in examples(base, raw, min(each, left), acting):
            left -= 1
            yield one


def _invocation(wanted: Wanted, base: Base, raw: bytes) -> tuple[int, ...]:
    if wanted.invocation is None:
        return ()
    row = next(parse((raw,)))
    found = invocation.spelled(base, row, next(encode_rows(base, [row])), wanted.invocation)
    if isinstance(found, Refusal):
        raise ValueError(found.message)
    return found
