"""Every name that the API hands out resolves: steps by number, results, and adapters that jobs go on from."""

import base64
import csv
import hashlib
import io
import json
import tarfile

import openai
import pytest

from db.contract.tokens.base_model import open_base
from db.ids import adapter_name, checkpoint_name, step_file
from db.worker import journal
from tests.service.conftest import rows
from tests.service.stage import UNBROKEN
from tests.waiting import until
from worker.adapters import peft_files
from worker.runs import rebuilding, recipes

LONG = 1_000_000


def weights(tar: bytes) -> str:
    """The SHA-256 of the weights in an adapter's tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return hashlib.sha256(archive.extractfile("adapter_model.safetensors").read()).hexdigest()


def replayed(stage, job: str, step: int) -> str:
    """The same of what the journal leads to."""
    with stage.factory.begin() as session:
        history = journal.history(session, job, step)
    base = open_base(history.spec.model, str(stage.base))
    layout = recipes.layout(history.spec, base)
    return peft_files.sha256(peft_files.weights(layout, rebuilding.rebuild(history, base).params))


def name_of(stage, job: str, step: int) -> str:
    row = stage.job(job)
    return checkpoint_name(adapter_name(row.model, row.tenant_id, row.spec.get("suffix"), row.id), step)


def fetched(client, file: str) -> bytes:
    """As a program does that repeats what it is told to try again."""

    def tried() -> bytes | None:
        try:
            return client.files.content(file).read()
        except openai.ConflictError as error:
            if error.code != "being_rebuilt":
                raise
            return None

    return until(tried, f"{file} is rebuilt")


@pytest.fixture(scope="module")
def done(stage, steady, client, submit):
    job = submit(client, "steady", steps=30, eval_every=10)
    stage.whole(client, job)
    return client.fine_tuning.jobs.retrieve(job)


def test_checkpoints_of_a_job_are_fetched_by_their_names(stage, client, done):
    points = client.fine_tuning.jobs.checkpoints.list(done.id).data
    assert {p.step_number for p in points} == {0, 10, 20, 30}
    for point in points:
        model = client.models.retrieve(point.fine_tuned_model_checkpoint)
        assert model.id == point.fine_tuned_model_checkpoint
        assert model.model_extra["onward"]["file"] == point.model_extra["onward"]["file"]
        file = point.model_extra["onward"]["file"]
        assert weights(fetched(client, file)) == replayed(stage, done.id, point.step_number)
        about = client.files.retrieve(file)
        assert about.bytes == len(client.files.content(file).read())
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name_of(stage, done.id, 31))
    with pytest.raises(openai.NotFoundError):
        client.files.content(step_file(done.id, 31))
    with pytest.raises(openai.PermissionDeniedError, match="journal"):
        client.models.delete(name_of(stage, done.id, 10))
    restored = step_file(done.id, 7)
    assert weights(fetched(client, restored)) == replayed(stage, done.id, 7)
    assert client.files.delete(restored).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.delete(restored)


def test_a_step_of_a_job_that_runs_and_of_one_that_was_cancelled_beside_a_slice(stage, harmed, client, submit):
    """The slice does not end for it, and its steps go on."""
    harmed(**UNBROKEN)
    job = submit(client, "harmed", steps=LONG, eval_every=LONG)
    stage.reached(job, 12)
    assert weights(fetched(client, step_file(job, 11))) == replayed(stage, job, 11)
    assert client.fine_tuning.jobs.retrieve(job).status == "running"
    client.fine_tuning.jobs.cancel(job)
    until(lambda: client.fine_tuning.jobs.retrieve(job).status == "cancelled", "cancelled")
    found = client.models.retrieve(name_of(stage, job, 3)).model_extra["onward"]
    assert weights(fetched(client, found["file"])) == replayed(stage, job, 3)
    (table,) = client.fine_tuning.jobs.retrieve(job).result_files
    lines = base64.b64decode(client.files.content(table).read()).splitlines()
    assert len(lines) in (stage.job(job).step + 1, stage.job(job).step + 2)


def test_the_first_result_is_openais_table_and_the_second_the_adapter(client, done, stage):
    table, adapter, receipt = done.result_files
    assert client.files.retrieve(receipt).filename == "receipt.json"
    assert adapter == done.model_extra["onward"]["adapter"]["file"]
    assert weights(client.files.content(adapter).read()) == done.model_extra["onward"]["adapter"]["sha256"]
    plain = client.files.content(table, extra_headers={"Accept": "text/csv"}).read()
    assert base64.b64decode(client.files.content(table).read(), validate=True) == plain
    assert client.files.retrieve(table).filename == "step_metrics.csv"
    assert client.files.retrieve(table).bytes == len(plain)
    lines = list(csv.DictReader(io.StringIO(plain.decode())))
    assert [int(line["step"]) for line in lines] == list(range(31))
    with stage.factory.begin() as session:
        losses = journal.read(session, done.id)
    assert [float(line["train_loss"]) for line in lines[1:]] == pytest.approx([sum(x) / len(x) for x in losses])
    points = {p.step_number: p.metrics for p in client.fine_tuning.jobs.checkpoints.list(done.id).data}
    for line in lines:
        at = points.get(int(line["step"]))
        assert line["train_accuracy"] == ""
        assert line["valid_loss"] == line["full_valid_loss"] == ("" if at is None else repr(at.valid_loss))
        assert (line["valid_mean_token_accuracy"] == "") == (at is None)


def test_hyperparameters_are_figures(client, done):
    assert done.hyperparameters.n_epochs == round(30 * 4 / 32)
    assert done.hyperparameters.batch_size == 4
    assert isinstance(done.hyperparameters.learning_rate_multiplier, float)
    assert done.model_extra["onward"]["epochs"] == 30 * 4 / 32


def children(client, model: str, **onward):
    train = client.files.create(file=("rows.jsonl", rows(32)), purpose="fine-tune").id
    about = {"steps": 8, "batch_size": 4, "eps": 1e-2, "learning_rate": 1e-2, "seed": 3} | onward
    return client.fine_tuning.jobs.create(model=model, training_file=train, extra_body={"onward": about})


def test_a_job_goes_on_from_an_adapter_and_from_a_step_and_their_parents_may_go(stage, client, submit):
    first = submit(client, "steady", steps=12, eval_every=4)
    stage.whole(client, first)
    parent = client.fine_tuning.jobs.retrieve(first)
    unpublished = next(n for n in (5, 6) if n != parent.model_extra["onward"]["adapter"]["step"])
    named = children(client, parent.fine_tuned_model)
    assert named.model == "steady"
    assert named.model_extra["onward"]["spec"]["parent"]["sha256"] == parent.model_extra["onward"]["adapter"]["sha256"]
    assert named.model_extra["onward"]["spec"]["adapter"] == parent.model_extra["onward"]["spec"]["adapter"]
    stepped = until(lambda: asked(client, name_of(stage, first, unpublished)), "the step's hash is known")
    assert stepped.model_extra["onward"]["spec"]["parent"]["sha256"] == replayed(stage, first, unpublished)
    hashes = {stage.whole(client, job.id) for job in (named, stepped)}
    assert len(hashes) == 2
    below = children(client, client.fine_tuning.jobs.retrieve(stepped.id).fine_tuned_model)
    assert client.models.delete(parent.fine_tuned_model).deleted
    stage.whole(client, below.id)
    assert weights(fetched(client, step_file(below.id, 0))) == stage.job(below.id).spec["parent"]["sha256"]
    assert client.fine_tuning.jobs.retrieve(below.id).fine_tuned_model.startswith("ft:steady:")
    for gone in (parent.fine_tuned_model, name_of(stage, first, unpublished)):
        with pytest.raises(openai.NotFoundError, match="deleted"):
            children(client, gone)
    with pytest.raises(openai.NotFoundError):
        client.files.content(step_file(first, unpublished))
    left = client.fine_tuning.jobs.retrieve(first)
    assert (left.status, left.fine_tuned_model, left.result_files) == ("succeeded", None, [])


def asked(client, model: str):
    try:
        return children(client, model)
    except openai.ConflictError as error:
        if error.code != "being_rebuilt":
            raise
        return None


def test_what_does_not_go_with_the_parent_is_refused_at_its_field(stage, client, done):
    for field, value in {
        "rank": 4, "alpha": 1.0, "targets": ["q_proj"], "activation": "answer", "layers": "last:1",
    }.items():  # fmt: skip
        with pytest.raises(openai.BadRequestError) as refused:
            children(client, done.fine_tuned_model, **{field: value})
        assert (refused.value.param, refused.value.code) == (f"onward.{field}", "other_layout")
    same = children(client, done.fine_tuned_model, rank=2, targets=["q_proj", "v_proj"], steps=1)
    assert json.loads(same.model_dump_json())["onward"]["spec"]["parent"]["job"] == done.id
    stranger = stage.tenant("stranger")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        children(stranger, done.fine_tuned_model)
    stage.whole(client, same.id)
