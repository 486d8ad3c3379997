"""What identifies a base model: SHA-256 of its configuration, its tokenizer and its weights. Knows files only."""

import hashlib
import json
import threading
from pathlib import Path

from db.contract.receipts.form import BasePart
from db.contract.receipts.refused import Refused

CONFIG = "config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")  # of the first kind that is there
BESIDE = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")  # what a trainer leaves: no weights
_known: dict[Path, BasePart] = {}
_one = threading.Lock()


def hashed(folder: Path) -> BasePart:
    """The hashes of the base in `folder`, read once a process: its files do not change while an engine has them. Who
    asks while another reads waits for it. Raises OSError where a file is not there or cannot be read."""
    with _one:
        if folder not in _known:
            _known[folder] = BasePart(
                config=_sha256(folder / CONFIG),
                tokenizer=_listed(_tokenizer(folder)),
                weights=_listed(weights(folder)),
            )
        return _known[folder]


def weights(folder: Path) -> list[Path]:
    """The files of the base's weights, by name; none where there are none."""
    kinds = ([file for file in folder.glob(kind) if file.name not in BESIDE] for kind in WEIGHTS)
    return sorted(next((files for files in kinds if files), []))


def compare(base: BasePart, folder: Path, weighed: bool = False) -> bool:
    """Whether the weights were compared too: a folder without any is taken for what a replay needs of a base, its small
    files, unless it must be `weighed`. Raises Refused `foreign_base` where a file is another, and where one misses."""
    try:
        if _sha256(folder / CONFIG) != base.config:
            raise Refused("foreign_base", f"{folder}: its config.json is not that of the receipt's base")
        if _listed(_tokenizer(folder)) != base.tokenizer:
            raise Refused("foreign_base", f"{folder}: its tokenizer's files are not those of the receipt's base")
        files = weights(folder)
        if (files or weighed) and _listed(files) != base.weights:
            raise Refused("foreign_base", f"{folder}: its weights are not those of the receipt's base")
    except OSError as error:
        raise Refused("foreign_base", f"{folder} is no base: {error.strerror}: {error.filename}") from None
    return bool(files)


def _tokenizer(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZER if (folder / name).is_file()]


def _listed(files: list[Path]) -> str:
    """SHA-256 of the JSON list of names and hashes, in the order of the names."""
    pairs = sorted([file.name, _sha256(file)] for file in files)
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
