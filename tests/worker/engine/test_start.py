"""What the engine learns from a base model's config before it starts."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config

from db.contract.tokens.architectures import ARCHITECTURES
from tests.bases import tiny
from worker.engine.start import sizes


def test_an_architecture_that_the_contract_does_not_list_is_refused_by_name(tmp_path: Path) -> None:
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"'gpt2' is not supported; {', '.join(ARCHITECTURES)}"):
        sizes(tmp_path, torch.float32)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_sizes_are_the_models_own(arch, tmp_path: Path) -> None:
    """Keys and values: two layers of one or two key heads of 32, in the bytes of the dtype."""
    path = tiny(arch, tmp_path)
    of = sizes(path, torch.float32)
    assert (of.context, of.vocab) == (256, 512)
    heads = 1 if arch == "llama" else 2
    assert of.token_bytes == 2 * sizes(path, torch.float16).token_bytes == 2 * 2 * heads * 32 * 4
    mlp = ("fc1", "fc2") if arch == "opt" else ("gate_proj", "up_proj", "down_proj")
    out = "out_proj" if arch == "opt" else "o_proj"
    assert set(of.targets) == {"q_proj", "k_proj", "v_proj", out, *mlp}
