"""From a request to the job's contract: the facts gathered here, decided in `db/contract/admit.py`. Writes nothing."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from api import errors, missing
from api.context import Context
from api.jobs import activation, parents
from api.jobs.request import JobCreate, asked
from db import files
from db.contract import admit
from db.contract.acting import Readings
from db.contract.admit import Admitted, Asked, Examples, Facts, Limits
from db.contract.tokens.base_model import load
from db.tables import File

SEEDS = 2**31  # a seed we draw fits OpenAI's integer


@dataclass(frozen=True)
class Prepared:
    """A request that no row has decided yet."""

    wanted: Asked
    facts: Facts
    sources: Sequence[activation.Source]

    async def readings(self) -> Readings:
        """Counting tokens may take seconds the first time a file meets a model: no thread of the requests' and no
        transaction is held meanwhile."""
        return await activation.gathered(self.wanted.activation, self.wanted.text, self.sources)

    def admitted(self, readings: Readings) -> Admitted:
        """The spec and what it costs. Raises ApiError 400."""
        return errors.accepted(admit.decide(self.wanted, self.facts, readings))


def prepared(body: JobCreate, tenant: str, context: Context, request: Request) -> Prepared:
    """What can be said before the rows are read. Raises ApiError: 404 for a model or file that is not there, 400 for
    what no row decides."""
    wanted, model = parents.resolved(errors.accepted(asked(body)), body, tenant, context)
    if model not in context.settings.models:
        raise missing.model(model)
    base = load(model, context.settings)
    training = stored(body.training_file, "training_file", tenant, context)
    validation = body.validation_file and stored(body.validation_file, "validation_file", tenant, context)
    server = context.settings
    facts = Facts(
        base,
        examples(training, "training_file"),
        examples(validation, "validation_file") if validation else None,
        Limits(server.max_steps, server.max_batch_size, server.max_rank, server.max_step_tokens),
        secrets.randbelow(SEEDS),
    )
    errors.accepted(admit.early(wanted, facts))
    sources = [
        activation.Source(file, of.param, base, tenant, context, request)
        for file, of in zip((training, validation), facts.files, strict=False)
        if file
    ]
    return Prepared(wanted, facts, sources)


def stored(file_id: str, param: str, tenant: str, context: Context) -> File:
    """The tenant's file of rows. Raises ApiError."""
    with context.transaction(tenant) as session:
        file = errors.found(files.get(tenant, session, file_id), missing.file(file_id, param))
    if file.format is None:
        raise errors.invalid(f"{file_id} has purpose '{file.purpose}', not 'fine-tune'.", param, "invalid_purpose")
    return file


def examples(file: File, param: str) -> Examples:
    return Examples(file.id, param, file.format, file.rows, file.repeated_rows)  # type: ignore[arg-type]  # the schema holds formats only
