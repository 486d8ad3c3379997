"""A receipt of a real run on a tiny base: its losses are the oracle's, its adapter is what they led to."""

import json
from dataclasses import dataclass
from pathlib import Path

from db.contract import methods
from db.contract.history import History
from db.contract.receipts.form import Told
from db.contract.spec import AdapterSpec, JobSpec, ParentSpec
from db.contract.tokens.base_model import Base, open_base
from tests.bases import tiny
from worker.adapters import base_files, peft_files, receipt
from worker.oracle.torch_scorer import TorchScorer
from worker.runs import cohort, recipes
from worker.runs.data import Dataset, examples
from worker.runs.rebuilding import first
from worker.runs.run import start

STEPS = 8
KEY, OTHER_KEY = "11" * 32, "22" * 32  # private
ROWS = b"".join(
    json.dumps({"prompt": f"the film {i} was", "choices": [" terrible", " great"], "label": i % 2}).encode() + b"\n"
    for i in range(9)
)


@dataclass(frozen=True)
class Made:
    """`weights` are those of the adapter that the run had at its end."""

    base: Base
    folder: Path
    told: tuple[Told, ...]
    weights: bytes

    def receipt(self, secret: str | None = KEY, *, sha256: str | None = None, told: tuple[Told, ...] = ()) -> bytes:
        """receipt.json, honest but for what is given."""
        jobs = told or self.told
        digest = sha256 or peft_files.sha256(self.weights)
        return receipt.issued(
            "ft:tiny:a::x", digest, base_files.hashed(self.folder), jobs, {"dtype": "float32"}, secret
        )


def spec(parent: ParentSpec | None = None, steps: int = STEPS, **method: object) -> JobSpec:
    return JobSpec(
        model="tiny",
        objective="choice",
        adapter=AdapterSpec(rank=2, alpha=4.0, targets=("q_proj", "v_proj")),
        method=methods.settings(**({"name": "mezo", "eps": 1e-2, "learning_rate": 1e-2} | method)),
        training_file="file-a",
        steps=steps,
        batch_size=4,
        eval_every=100,
        seed=3,
        parent=parent,
    )


def trained(folder: Path, parent: Made | None = None, profile: bytes | None = None, **changes: object) -> Made:
    """A run of `STEPS` steps, that went on from the adapter of `parent` where there is one, and read the `profile`."""
    changes |= {} if profile is None else {"profile": peft_files.sha256(profile)}
    base = open_base("tiny", str(folder if parent else tiny("llama", folder)))
    above = parent and parent.told[0]
    comes_from = above and ParentSpec(job=above.job, step=above.history.step, sha256=peft_files.sha256(parent.weights))
    job = spec(comes_from, **changes)
    run = start("ftjob-child" if parent else "ftjob-a", job, base, Dataset(examples(base, ROWS)), profile=profile)
    run = run.at(first(History(job, [], parent=above.history if above else None, profile=profile), base))
    scorer, losses = TorchScorer(base.path), []
    while not run.done:
        ((run, result),) = cohort.step([run], scorer)
        losses.append(list(result.losses))
    scorer.close()
    history = History(job, losses, parent=above.history if above else None, profile=profile)
    told = (Told(run.job_id, history, peft_files.sha256(ROWS), None), *(parent.told if parent else ()))
    return Made(base, base.path, told, peft_files.weights(recipes.layout(job, base), run.params))
