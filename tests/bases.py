"""Tiny random base models for tests: real architectures and tokenizers, built in milliseconds. Knows no room."""

from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

Architecture = Literal["opt", "llama", "qwen2"]
VOCAB = 512
CONTEXT = 256
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<|start|>", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
CORPUS = [
    "the film was a great and moving story about a small town",
    "it was terrible, a long and boring movie with no heart",
    "user system assistant question answer yes no positive negative great terrible good bad",
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs!",
    "What is the capital of France? Paris is the capital of France. 0 1 2 3 4 5 6 7 8 9",
]


def tokenizer(arch: Architecture) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most VOCAB ids. Llama begins with <s> (0), OPT with </s> (2) as OPT does, Qwen2 with none;
    end of text is </s> for Llama and OPT and <|end|> for Qwen2."""
    core = Tokenizer(BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        CORPUS * 3,
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=SPECIALS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bos = {"llama": "<s>", "opt": "</s>", "qwen2": None}[arch]
    if bos is not None:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos,
        eos_token="<|end|>" if arch == "qwen2" else "</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
        model_max_length=CONTEXT,
    )


def tiny(arch: Architecture, folder: Path, tied: bool = True) -> Path:
    """Build (once per folder) a 2-layer, 64-wide, seeded fp32 model with its tokenizer; returns its directory.

    Every parameter is random, biases and norms too, so that no term of the forward pass goes untested."""
    path = Path(folder) / f"tiny-{arch}-{'tied' if tied else 'untied'}"
    if (path / "tokenizer.json").exists():
        return path
    tok = tokenizer(arch)
    ids = {
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
        "pad_token_id": tok.pad_token_id,
        "tie_word_embeddings": tied,
    }
    common = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT,
    }
    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    if arch == "opt":
        model = OPTForCausalLM(OPTConfig(**common, **ids, ffn_dim=128, word_embed_proj_dim=64))
    elif arch == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common, **ids, intermediate_size=128, num_key_value_heads=1))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**common, **ids, intermediate_size=128, num_key_value_heads=2))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight) * (0.15 if weight.dim() > 1 else 0.05)
            weight.copy_(noise + 1.0 if "norm" in name and name.endswith("weight") else noise)
    torch.random.set_rng_state(state)
    model.float().save_pretrained(path)
    tok.save_pretrained(path)
    return path
