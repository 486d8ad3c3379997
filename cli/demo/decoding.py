"""What an adapter answers, judged from outside: PEFT and transformers, greedy decoding, none of our code. Chat rows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEW_TOKENS = 32  # at most, of an answer


@dataclass(frozen=True)
class Answers:
    """To each row's prompt the answer that greedy decoding gives, and the loss of the rows' own answers, nats a token
    with the token that ends them."""

    texts: tuple[str, ...]
    loss: float


def answers(model_folder: str, adapter: Path, rows: Sequence[dict[str, Any]]) -> tuple[Answers, Answers]:
    """Of the base model alone and with the adapter of a PEFT directory, in float32. The last message of a row is its
    answer, what comes before it the prompt."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    with torch.inference_mode():
        with model.disable_adapter():
            before = _answered(model, tokenizer, rows)
        return before, _answered(model, tokenizer, rows)


def _answered(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> Answers:
    import torch

    texts, total, count = [], 0.0, 0
    for row in rows:
        messages = row["messages"]
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(messages, tokenize=False).rstrip("\n")  # up to what ends the answer
        ids, start = tokenizer(whole)["input_ids"], len(tokenizer(prompt)["input_ids"])
        logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum"))
        count += len(ids) - start
        asked = torch.tensor([ids[:start]])
        made = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=ids[-1],
            pad_token_id=ids[-1],
        )
        texts.append(tokenizer.decode(made[0, start:], skip_special_tokens=True).strip())
    return Answers(tuple(texts), total / count)
