"""From a request to the job's contract: the facts gathered here, decided in `db/contract/admit.py`. Writes nothing."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from api import errors, missing
from api.context import Context
from api.jobs import activation, parents
from api.jobs.request import JobCreate, asked
from db import files, profiles, workers
from db.contract import admit
from db.contract.acting import Readings
from db.contract.admit import Admitted, Asked, Examples, Facts, Limits
from db.contract.refusal import Refusal
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base, load
from db.tables import File, Job

SEEDS = 2**31  # a seed we draw fits OpenAI's integer


@dataclass(frozen=True)
class Prepared:
    """A request that no row has decided yet."""

    wanted: Asked
    facts: Facts
    sources: Sequence[activation.Source]
    first: JobSpec  # what no row decides: a spec whose `auto` may still come to something else

    async def readings(self) -> Readings:
        """Counting tokens may take seconds the first time a file meets a model: no thread of the requests' and no
        transaction is held meanwhile."""
        return await activation.gathered(self.wanted.activation, self.wanted.text, self.sources)

    def admitted(self, readings: Readings) -> Admitted:
        """The spec and what it costs. Raises ApiError 400."""
        return errors.accepted(self.decided(readings))

    def decided(self, readings: Readings) -> Admitted | Refusal:
        return admit.decide(self.wanted, self.facts, readings)


def prepared(body: JobCreate, tenant: str, context: Context, attend: activation.Attend) -> Prepared:
    """What can be said before the rows are read. Raises ApiError: 404 for a model or file that is not there, 400 for
    what no row decides."""
    wanted, model = parents.resolved(errors.accepted(asked(body)), body, tenant, context)
    if model not in context.settings.models:
        raise missing.model(model)
    base = load(model, context.settings)
    training = stored(body.training_file, "training_file", tenant, context)
    validation = body.validation_file and stored(body.validation_file, "validation_file", tenant, context)
    return _prepared(wanted, base, (training, validation or None), context, tenant, attend, secrets.randbelow(SEEDS))


def again(job: Job, context: Context, attend: activation.Attend) -> Prepared:
    """The same of a job that was accepted before its rows were read, with the seed it was given: outside of a request.
    Raises ApiError as `prepared`, where limits have changed since."""
    body = JobCreate.model_validate_json(json.dumps(job.request))
    with context.transaction(job.tenant_id) as session:
        mine = select(File).where(File.tenant_id == job.tenant_id)  # deleted ones too: the job still reads them
        training = session.scalars(mine.where(File.id == job.training_file)).one()
        validation = session.scalars(mine.where(File.id == job.validation_file)).first()
    wanted, base = errors.accepted(asked(body)), load(job.model, context.settings)
    return _prepared(wanted, base, (training, validation), context, job.tenant_id, attend, job.spec["seed"], True)


def _prepared(
    wanted: Asked,
    base: Base,
    stored: tuple[File, File | None],
    context: Context,
    tenant: str,
    attend: activation.Attend,
    seed: int,
    outside: bool = False,
) -> Prepared:
    training, validation = stored
    server = context.settings
    with context.transaction(tenant) as session:  # what was accepted by its name before waits for its worker
        accepted = outside and "method" in wanted.values
        derivatives = accepted or workers.serving(session, base.name, autograd=True)
        dtypes = workers.dtypes(session, base.name)
        profile = profiles.named(session, str(wanted.values.get("profile", "")))
    facts = Facts(
        base,
        examples(training, "training_file"),
        examples(validation, "validation_file") if validation else None,
        Limits(server.max_steps, server.max_batch_size, server.max_rank, server.max_step_tokens),
        seed,
        derivatives,
        dtypes,
        profile,
    )
    first = errors.accepted(admit.first(wanted, facts))
    sources = [
        activation.Source(file, of.param, base, tenant, context, attend, outside)
        for file, of in zip((training, validation), facts.files, strict=False)
        if file
    ]
    return Prepared(wanted, facts, sources, first)


def stored(file_id: str, param: str, tenant: str, context: Context) -> File:
    """The tenant's file of rows. Raises ApiError."""
    with context.transaction(tenant) as session:
        file = errors.found(files.get(tenant, session, file_id), missing.file(file_id, param))
    if file.format is None:
        raise errors.invalid(f"{file_id} has purpose '{file.purpose}', not 'fine-tune'.", param, "invalid_purpose")
    return file


def examples(file: File, param: str) -> Examples:
    return Examples(file.id, param, file.format, file.rows, file.repeated_rows)  # type: ignore[arg-type]  # the schema holds formats only
