"""Deletion is one thing: by the file's id or the adapter's name, all of it goes, and what remains is the receipt."""

import openai
import pytest
from sqlalchemy import func, select

from db.tables import Adapter, FileChunk, Job, JournalStep
from db.worker import journal, leases
from db.worker.journal import Published, Step
from tests.api.examples import choices, submit, upload
from tests.db.inserted import a_worker
from tests.waiting import HANG
from worker.slices.tidy import Tidy


@pytest.fixture
def published(anna, factory, tmp_path):
    """A succeeded job of anna's, with its adapter, and the folder of the worker that published it."""
    job_id = submit(anna, upload(anna, *choices(3)), {"steps": 1}).id
    folder = tmp_path / "adapters" / job_id
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    with factory.begin() as session:
        claim = leases.claim(session, job_id, a_worker(session), HANG, 5)
        journal.flush(session, claim, [Step(0, [1.0, 2.0], 10)])
        made = Published(name=f"ft:{job_id}", step=1, sha256="0" * 64, path=str(folder), tar=b"tar of weights")
        journal.finish(session, claim, made)
    return anna.openai.fine_tuning.jobs.retrieve(job_id)


def by_file(who, job):
    answer = who.openai.files.delete(job.result_files[1])
    assert answer.deleted
    assert answer.model_extra["onward"] == {"adapter": job.fine_tuned_model, "job": job.id}


def by_name(who, job):
    answer = who.openai.models.delete(job.fine_tuned_model)
    assert (answer.id, answer.deleted, answer.object) == (job.fine_tuned_model, True, "model")
    assert answer.model_extra["onward"]["file"] == job.result_files[1]


@pytest.mark.parametrize("delete", [by_file, by_name])
def test_file_name_bytes_and_folder_go_and_the_journal_stays(anna, factory, published, tmp_path, delete):
    file, name = published.result_files[1], published.fine_tuned_model
    assert anna.openai.files.content(file).read() == b"tar of weights"
    tidy = Tidy(tmp_path / "adapters")
    with factory.begin() as session:
        tidy.remove(tidy.gone(session))
    folder = tmp_path / "adapters" / published.id
    assert folder.is_dir(), "nothing of what is there"
    delete(anna, published)
    for call in (anna.openai.files.content, anna.openai.files.retrieve, anna.openai.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file)
    for call in (anna.openai.models.retrieve, anna.openai.models.delete):
        with pytest.raises(openai.NotFoundError):
            call(name)
    assert name not in [model.id for model in anna.openai.models.list()]
    job = anna.openai.fine_tuning.jobs.retrieve(published.id)
    assert (job.status, job.fine_tuned_model, job.result_files) == ("succeeded", None, [])
    assert job.model_extra["onward"]["adapter"]["deleted_at"] > 0
    with factory.begin() as session:
        assert session.scalar(select(func.count()).where(FileChunk.file_id == file)) == 0
        assert session.scalar(select(func.count()).where(JournalStep.job_id == published.id)) == 1
        assert session.scalars(select(Adapter).where(Adapter.job_id == published.id)).one().deleted_at is not None
        tidy.remove(tidy.gone(session))
    assert not folder.exists()


def test_nobody_deletes_anothers_adapter_or_a_base_model(anna, ben, published):
    with pytest.raises(openai.NotFoundError):
        ben.openai.models.delete(published.fine_tuned_model)
    with pytest.raises(openai.NotFoundError):
        ben.openai.files.delete(published.result_files[1])
    with pytest.raises(openai.PermissionDeniedError):
        anna.openai.models.delete("tiny")
    assert anna.openai.models.retrieve(published.fine_tuned_model).id == published.fine_tuned_model


def test_a_training_file_goes_alone_and_its_job_goes_on(anna, factory):
    file = upload(anna, *choices(3))
    job = submit(anna, file)
    answer = anna.openai.files.delete(file)
    assert answer.model_extra["onward"] is None
    with factory.begin() as session:
        assert session.get(Job, job.id).state == "queued"
        assert session.scalar(select(func.count()).where(FileChunk.file_id == file)) == 1, "the job reads it"
