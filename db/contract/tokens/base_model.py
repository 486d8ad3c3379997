"""Base models by name: architecture, linear modules, context and tokenizer, read from small files. Knows no weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import huggingface_hub
from tokenizers import Tokenizer, processors

from db.contract.tokens.architectures import ARCHITECTURES, Linear, linears, number, size

SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class UnusableBase(ValueError):
    """A configured base model that Onward cannot train adapters for; the message says why."""


class UnknownBase(KeyError):
    """A name that is not among the configured base models."""


class UnknownTarget(ValueError):
    """A target that names no linear module of the base model; the message lists what there is."""


class NamesModels(Protocol):
    """What `load` needs of the settings: base model names and where each lives (a folder or a hub id)."""

    @property
    def models(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Base:
    """A base model as API and worker agree on it.

    `source` is what an engine loads the weights from (a folder or a hub id), `path` the folder of its small files.
    `context` counts positions. `modules` are the attention and MLP linears (name, inputs, outputs) in the model's own
    order, named as in transformers' state dict without `.weight`. `vocab` is the number of embedding rows. `prefix`
    are the ids the tokenizer puts before a text (its BOS, or nothing), `eos` ends a completion. The weights may be
    `quantised`.
    """

    name: str
    source: str
    path: Path
    architecture: str
    context: int
    vocab: int
    modules: tuple[Linear, ...] = field(repr=False)
    prefix: tuple[int, ...]
    eos: int | None
    chat_template: str | None = field(repr=False)
    special_tokens: Mapping[str, str] = field(repr=False, hash=False)  # bos_token, eos_token, ...: for the template
    special_ids: frozenset[int] = field(repr=False)
    tokenizer: Tokenizer = field(repr=False, hash=False, compare=False)
    quantised: bool = False

    @property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the small files: of all that decides how a row becomes tokens but this code."""
        return _fingerprint(self.path)

    @property
    def targets(self) -> tuple[str, ...]:
        """Last parts of the modules' names, each once, in model order: what an adapter may act on."""
        return tuple(dict.fromkeys(name.rpartition(".")[2] for name, _, _ in self.modules))

    @property
    def depth(self) -> int:
        """How many transformer layers there are."""
        return number(self.modules[-1][0]) + 1

    def select(self, targets: tuple[str, ...], layers: tuple[int, ...] = ()) -> tuple[Linear, ...]:
        """The modules that a suffix in `targets` names (as PEFT matches: whole parts), in model order; those of
        `layers` alone where any are given.

        Raises UnknownTarget where a suffix names none.
        """
        if missing := self.missing(targets, layers):
            raise UnknownTarget(f"{self.name} has no module {missing[0]!r}; it has {', '.join(self.targets)}")
        return tuple(m for m in self._in(layers) if any(_names(target, m[0]) for target in targets))

    def missing(self, targets: tuple[str, ...], layers: tuple[int, ...] = ()) -> tuple[str, ...]:
        """Those of `targets` that name no module, of `layers` where any are given."""
        return tuple(t for t in targets if not any(_names(t, name) for name, _, _ in self._in(layers)))

    def _in(self, layers: tuple[int, ...]) -> tuple[Linear, ...]:
        return tuple(m for m in self.modules if number(m[0]) in layers) if layers else self.modules

    def everywhere_only(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the modules that `targets` name which no adapter of activation `answer` may act on."""
        flattened = ARCHITECTURES[self.architecture].flattened
        return tuple(name for name, _, _ in self.select(targets) if name.rpartition(".")[2] in flattened)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, BOS first where the tokenizer adds one. An EOS it would append is left out: what a
        completion follows is not at an end."""
        return [*self.prefix, *self.tokenizer.encode(text, add_special_tokens=False).ids]


@lru_cache(maxsize=64)
def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    for name in SMALL_FILES:
        data = (path / name).read_bytes() if (path / name).is_file() else b""
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def _names(target: str, module: str) -> bool:
    return module == target or module.endswith("." + target)


def load(name: str, settings: NamesModels) -> Base:
    """The configured base model `name`, read once a process. Raises UnknownBase, UnusableBase."""
    if name not in settings.models:
        raise UnknownBase(name)
    return open_base(name, settings.models[name])


@lru_cache(maxsize=64)
def open_base(name: str, source: str) -> Base:
    """The base model at `source`: an existing folder, or a hub id whose small files are downloaded (from the local
    cache alone where HF_HUB_OFFLINE is set). Raises UnusableBase."""
    path = _folder(name, source)
    config = _json(path / "config.json", name)
    settings = _json(path / "tokenizer_config.json", name) if (path / "tokenizer_config.json").exists() else {}
    if "auto_map" in config or "auto_map" in settings:
        raise UnusableBase(f"{name} brings its own code (auto_map), which Onward does not run")
    try:
        modules = linears(config)
        context, vocab = size(config, "max_position_embeddings"), size(config, "vocab_size")
    except ValueError as error:
        raise UnusableBase(f"{name}: {error}") from error
    if not (path / "tokenizer.json").is_file():
        raise UnusableBase(f"{name} has no tokenizer.json (save it with a fast tokenizer)")
    try:
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise UnusableBase(f"{name}: tokenizer.json cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = _special_tokens(settings)
    prefix = _prefix(tokenizer, settings, special)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)  # from here on whole offsets are wanted
    return Base(
        name=name,
        source=source,
        path=path,
        architecture=str(config["model_type"]),
        context=context,
        vocab=vocab,
        modules=modules,
        prefix=prefix,
        eos=_eos(tokenizer, special, config),
        chat_template=_chat_template(path, settings),
        special_tokens=special,
        special_ids=frozenset(i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special),
        tokenizer=tokenizer,
        quantised=isinstance(config.get("quantization_config"), dict),
    )


def _folder(name: str, source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise UnusableBase(f"{name}: there is no folder {source}")
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=list(SMALL_FILES)))
    except Exception as error:  # offline, gated, missing, no disk: all the same to who configured the name
        raise UnusableBase(f"{name}: {source} is no folder and cannot be had from the hub: {error}") from error


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnusableBase(f"{name} has no {path.name}") from error
    except ValueError as error:
        raise UnusableBase(f"{name}: {path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnusableBase(f"{name}: {path.name} is not a JSON object")
    return value


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"):
        value = settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[key] = text
    return found


def _prefix(tokenizer: Tokenizer, settings: Mapping[str, Any], special: Mapping[str, str]) -> tuple[int, ...]:
    # As transformers: an explicit setting rebuilds the post-processor, without one tokenizer.json's own rules.
    if "add_bos_token" in settings or "add_eos_token" in settings:
        bos = tokenizer.token_to_id(special.get("bos_token", ""))
        return (bos,) if settings.get("add_bos_token") and bos is not None else ()
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    return tuple(full[:start])


def _eos(tokenizer: Tokenizer, special: Mapping[str, str], config: Mapping[str, Any]) -> int | None:
    known = tokenizer.token_to_id(special["eos_token"]) if "eos_token" in special else None
    if known is not None:
        return int(known)
    configured = config.get("eos_token_id")
    first = configured[0] if isinstance(configured, list) and configured else configured
    return first if isinstance(first, int) else None


def _chat_template(path: Path, settings: Mapping[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    value = settings.get("chat_template")
    if isinstance(value, list):  # several named templates: the default one
        value = next((t.get("template") for t in value if t.get("name") == "default"), None)
    return value if isinstance(value, str) else None
