"""A receipt made of an adapter, and an adapter made of a receipt. Knows no database, no engine and no key's owner."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from db.contract.history import History
from db.contract.methods.profiled import profile_of
from db.contract.receipts import signing
from db.contract.receipts.form import AdapterPart, BasePart, Receipt, Told, sealed, written
from db.contract.receipts.refused import Refused
from db.contract.spec import SPEC_VERSION
from db.contract.tokens.base_model import Base, UnknownTarget
from db.telemetry.version import VERSION
from worker.adapters import peft_files
from worker.runs import rebuilding, recipes

MOST_VERSIONS = 24


def issued(
    name: str, sha256: str, base: BasePart, told: Sequence[Told], about: Mapping[str, Any], secret: str | None
) -> bytes:
    """receipt.json of the adapter of this name and hash, signed where there is a key. `about` is what a worker says of
    its engine."""
    versions = {key: str(value)[:512] for key, value in sorted(about.items())[:MOST_VERSIONS] if len(key) <= 64}
    versions |= {"onward": VERSION, "spec": str(SPEC_VERSION), "numpy": np.__version__}
    history = told[0].history
    config = peft_files.sha256(peft_files.config(history.spec.adapter, history.spec.model))
    adapter = AdapterPart(config=config, name=name, sha256=sha256, step=history.step)
    payload = written(adapter, base, told, versions)
    return sealed(payload, [signing.signed(payload, secret)] if secret else [])


def beside(receipt: Receipt, files: Iterable[bytes]) -> Receipt:
    """The receipt with the profiles that its jobs' methods read, found among `files` by their hashes. Raises Refused
    `profile` where one is not among them."""
    known = {peft_files.sha256(file): file for file in files}
    told = tuple(replace(one, history=_with(one.history, known)) for one in receipt.told)
    return replace(receipt, told=told)


def _with(history: History, known: Mapping[str, bytes]) -> History:
    wanted = profile_of(history.spec.method)
    if wanted is not None and wanted not in known:
        raise Refused("profile", f"the profile {wanted}, which its method reads, is not among the files given")
    parent = None if history.parent is None else _with(history.parent, known)
    return replace(history, parent=parent, profile=None if wanted is None else known[wanted])


def rebuilt(receipt: Receipt, base: Base) -> dict[str, bytes]:
    """The files of the adapter's PEFT directory, replayed from the losses alone. Raises Refused: `hash` where they lead
    to another adapter than it says, or a parent's to another than its child names; `history` where they cannot be
    replayed on this base."""
    spec = receipt.history.spec
    for told in receipt.told:
        parent = told.history.spec.parent
        if parent is not None and told.history.parent is not None:
            _expect(parent.sha256, _weights(told.history.parent, base), "its parent's losses lead")
    weights = _weights(receipt.history, base)
    _expect(receipt.adapter.sha256, weights, "its losses lead")
    config = peft_files.config(spec.adapter, spec.model)
    _expect(receipt.adapter.config, config, "its spec leads")
    return {
        peft_files.WEIGHTS: weights,
        peft_files.CONFIG: config,
        peft_files.README: peft_files.readme(spec.adapter, spec.model, receipt.adapter.name, spec.method.autograd),
    }


def _weights(history: History, base: Base) -> bytes:
    try:
        layout = recipes.layout(history.spec, base)
        with np.errstate(all="ignore"):  # losses that were made up may overflow
            point = rebuilding.rebuild(history, base)
    except (UnknownTarget, ValueError) as error:
        raise Refused("history", f"it cannot be replayed: {error}") from None
    return peft_files.weights(layout, point.params)


def _expect(wanted: str, file: bytes, what: str) -> None:
    found = peft_files.sha256(file)
    if found != wanted:
        raise Refused("hash", f"{what} to {found}, not to {wanted}")
