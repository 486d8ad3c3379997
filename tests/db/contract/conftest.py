"""Tiny base models of every architecture, opened as API and worker open them."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cli.local.demo_model import demo_model
from db.contract.tokens.base_model import Base, open_base
from tests.bases import Architecture, tiny

# A run is the same every time.
settings.register_profile("contract", settings.get_profile("tests"), derandomize=True)
settings.load_profile("contract")
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen2", "opt")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {arch: tiny(arch, root) for arch in ARCHITECTURES}


@pytest.fixture(scope="session")
def tiny_bases(folders: dict[str, Path]) -> dict[str, Base]:
    return {arch: open_base(f"tiny-{arch}", str(folder)) for arch, folder in folders.items()}


@pytest.fixture(params=ARCHITECTURES, scope="session")
def base(request: pytest.FixtureRequest, tiny_bases: dict[str, Base]) -> Base:
    return tiny_bases[request.param]


@pytest.fixture(scope="session")
def llama(tiny_bases: dict[str, Base]) -> Base:
    return tiny_bases["llama"]


@pytest.fixture(scope="session")
def qwen2(tiny_bases: dict[str, Base]) -> Base:
    return tiny_bases["qwen2"]


@cache
def fast_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """transformers' own tokenizer: the oracle."""
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """The demo's base model, built where `make demo` keeps it and reused from there."""
    return demo_model(Path(".onward"))
