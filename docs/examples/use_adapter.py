"""An adapter in transformers and PEFT: python docs/examples/use_adapter.py BASE ADAPTER PROMPT CHOICE CHOICE..."""

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(folder: str, adapter: str, prompt: str, *choices: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), adapter).eval()
    scores = {}
    for choice in choices:
        start = len(tokenizer(prompt)["input_ids"])
        ids = tokenizer(prompt + choice, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logprobs = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
        targets = ids[0, 1:]
        scores[choice] = float(logprobs[torch.arange(len(targets)), targets][start - 1 :].mean())
    print(
        f"{max(scores, key=lambda choice: scores[choice])!r}",
        {choice: round(score, 3) for choice, score in scores.items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
