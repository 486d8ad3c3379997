"""A receipt: what an adapter follows from, as a small JSON file with one byte form. Knows no key, method or disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.contract.history import History, Restart
from db.contract.receipts.losses import Widths, packed, unpacked
from db.contract.receipts.refused import Refused
from db.contract.spec import JobSpec, stored

FORMAT: Final = "onward.receipt/1"
MOST_BYTES: Final = 64 << 20
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=512)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AdapterPart(Part):
    """SHA-256 of adapter_model.safetensors after `step` steps, and `config` of adapter_config.json: its scaling."""

    config: Hash
    name: Name
    sha256: Hash
    step: int = Field(ge=0)


class BasePart(Part):
    """SHA-256 of the base's config.json, and of the lists of its tokenizer's and of its weights' files with theirs."""

    config: Hash
    tokenizer: Hash
    weights: Hash


class JobPart(Part):
    """A job up to the step that is told of: its files' SHA-256, its spec, and what was measured."""

    job: Name
    training: Hash
    validation: Hash | None
    spec: dict[str, Any]
    widths: Widths
    losses: str
    restarts: tuple[tuple[int, int], ...]


class SignaturePart(Part):
    keyid: Name
    sig: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class Body(Part):
    """The signed part. `jobs` begins with the adapter's own; each goes on from the adapter of the next."""

    adapter: AdapterPart
    base: BasePart
    format: Literal["onward.receipt/1"]
    jobs: tuple[JobPart, ...] = Field(min_length=1, max_length=64)
    versions: dict[Name, Annotated[str, Field(max_length=512)]] = Field(max_length=32)


class File(Body):
    signatures: tuple[SignaturePart, ...] = Field(max_length=8)


@dataclass(frozen=True)
class Told:
    """A job that an adapter follows from; `training` and `validation` are the SHA-256 (hex) of its files."""

    job: str
    history: History
    training: str
    validation: str | None


@dataclass(frozen=True)
class Receipt:
    """A receipt that was read and agrees with itself. `payload` is what a signature is of; `told` begins with the
    adapter's own job, whose `history` holds the others as its parents."""

    adapter: AdapterPart
    base: BasePart
    told: tuple[Told, ...]
    versions: dict[str, str]
    payload: bytes
    signatures: tuple[SignaturePart, ...]

    @property
    def history(self) -> History:
        return self.told[0].history


def written(adapter: AdapterPart, base: BasePart, told: Sequence[Told], versions: dict[str, str]) -> bytes:
    """The payload of a receipt."""
    jobs = tuple(_part(one) for one in told)
    body = Body(adapter=adapter, base=base, format=FORMAT, jobs=jobs, versions=versions)
    return canonical(body.model_dump(mode="json"))


def sealed(payload: bytes, signatures: Sequence[SignaturePart] = ()) -> bytes:
    """The file: the payload's fields and its signatures."""
    document = json.loads(payload) | {"signatures": [one.model_dump() for one in signatures]}
    return canonical(document) + b"\n"


def canonical(document: Any) -> bytes:
    """JSON in ASCII, keys in order, no spaces, numbers as Python writes them."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def read(data: bytes) -> Receipt:
    """A receipt from its file. Raises Refused for anything that `sealed` would not have written so, byte for byte, and
    for what contradicts itself. Whether it is true is not asked here."""
    document = _document(data)
    try:
        file = File.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the receipt"
        raise Refused("fields", f"{at}: {first['msg']}") from None
    told = _told(file)
    if told[0].history.step != file.adapter.step:
        said = f"it tells of {told[0].history.step} of the adapter's {file.adapter.step} steps"
        raise Refused("truncated" if told[0].history.step < file.adapter.step else "history", said)
    del document["signatures"]
    return Receipt(file.adapter, file.base, told, file.versions, canonical(document), file.signatures)


def _document(data: bytes) -> dict[str, Any]:
    """The file as JSON in its one form."""
    if len(data) > MOST_BYTES:
        raise Refused("fields", f"it has {len(data)} bytes, {MOST_BYTES} at most are read")
    try:
        document = json.loads(data.decode("ascii"))
        again = canonical(document) + b"\n"
    except json.JSONDecodeError as error:
        cut = data[:1] == b"{" and (error.pos >= len(data.rstrip()) or not data.rstrip().endswith(b"}"))
        raise Refused("truncated" if cut else "not_json", f"it is no JSON: {error}") from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:  # a number of too many digits, NaN, depth
        raise Refused("not_json", f"it is no JSON that a receipt is written in: {type(error).__name__}") from None
    if not isinstance(document, dict):
        raise Refused("not_json", "it is no JSON object")
    if again != data:
        raise Refused("not_canonical", "its bytes are not the ones that its content is written in")
    return document


def _part(told: Told) -> JobPart:
    history = told.history
    widths, losses = packed(history.losses)
    return JobPart(
        job=told.job,
        training=told.training,
        validation=told.validation,
        spec=history.spec.model_dump(mode="json"),
        widths=widths,
        losses=losses,
        restarts=tuple((restart.at, restart.origin) for restart in history.restarts),
    )


def _told(file: File) -> tuple[Told, ...]:
    """The jobs with their histories, the eldest's first made."""
    told: list[Told] = []
    for number, part in reversed(list(enumerate(file.jobs))):
        spec, losses = _spec(part), unpacked(part.widths, part.losses)
        _within(spec, part, len(losses))
        _follows(spec, file.jobs[number + 1] if number + 1 < len(file.jobs) else None, told[0] if told else None)
        restarts = tuple(Restart(at, origin) for at, origin in part.restarts)
        history = History(spec, losses, restarts, told[0].history if told else None)
        told.insert(0, Told(part.job, history, part.training, part.validation))
    return tuple(told)


def _spec(part: JobPart) -> JobSpec:
    """The spec, whose fields are written as this release writes them; those that it adds may miss."""
    try:
        spec = stored(part.spec)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # pydantic's is a ValueError
        said = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, said['loc']))}: {said['msg']}" if said else type(error).__name__
        raise Refused("spec", f"the spec of {part.job} is none that this release knows: {why}") from None
    if not _among(part.spec, spec.model_dump(mode="json")):
        raise Refused("spec", f"the spec of {part.job} is not written as specs are")
    return spec


def _among(some: Any, all_: Any) -> bool:
    if isinstance(some, dict) and isinstance(all_, dict):
        return all(key in all_ and _among(value, all_[key]) for key, value in some.items())
    if isinstance(some, list) and isinstance(all_, list):
        return len(some) == len(all_) and all(map(_among, some, all_))
    return type(some) is type(all_) and bool(some == all_)


def _within(spec: JobSpec, part: JobPart, steps: int) -> None:
    if steps > spec.steps:
        raise Refused("history", f"{part.job} has {spec.steps} steps, {steps} are told of")
    if (part.validation is None) != (spec.validation_file is None):
        raise Refused("history", f"{part.job}: a validation file and its hash go together")
    ats = [at for at, _ in part.restarts]
    if ats != sorted(ats) or any(not 0 <= origin <= at < steps for at, origin in part.restarts):
        raise Refused("history", f"the restarts of {part.job} do not lie within its steps, in order")


def _follows(spec: JobSpec, part: JobPart | None, parent: Told | None) -> None:
    """Whether the job goes on from the one that is told of after it."""
    if spec.parent is None or part is None or parent is None:
        if (spec.parent is None) != (part is None):
            raise Refused("parents", "a job that goes on from an adapter and that adapter's job are told of together")
        return
    if (spec.parent.job, spec.parent.step) != (parent.job, parent.history.step):
        said = f"step {spec.parent.step} of {spec.parent.job}, not from step {parent.history.step} of {parent.job}"
        raise Refused("parents", f"it goes on from {said}")
    if spec.model != parent.history.spec.model:
        raise Refused("parents", f"its parent is on the base {parent.history.spec.model}, it on {spec.model}")
