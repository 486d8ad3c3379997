"""Seeded requests whose prompts are read in chunks. Knows vLLM's input batch and torch's generators; no requests.

Of a prompt that takes several steps vLLM samples after each and discards all but the last, and sets a seeded request's
generator back. It does so by an offset, which a CPU's generator has not: it raises, out of the step of everybody. So
here a generator keeps the state it had before the step.
"""

from typing import Any

import torch


class Rewinding(torch.Generator):
    """Set back to where it was when the batch was last asked for its generators, whatever the offset."""

    before: torch.Tensor | None = None

    def get_offset(self) -> int:
        return 0

    def set_offset(self, _: int) -> torch.Generator:
        if self.before is not None:
            self.set_state(self.before)
        return self


class Seeded(dict[int, torch.Generator]):
    """The generators of a batch's requests, by row. The sampler asks for its items, once in a step, before it draws."""

    def items(self) -> Any:
        for generator in self.values():
            if isinstance(generator, Rewinding):
                generator.before = generator.get_state()
        return super().items()


def install(runner: Any) -> None:
    """Have the batch of vLLM's model `runner` use such generators, where the device's own cannot be set back."""
    if runner.device.type != "cpu":
        return
    batch = runner.input_batch
    batch.generators = Seeded(batch.generators)
    add = batch.add_request

    def add_request(request: Any) -> Any:
        plain = request.generator
        if plain is not None and not isinstance(plain, Rewinding):
            request.generator = Rewinding(device=plain.device)
            request.generator.set_state(plain.get_state())
        return add(request)

    batch.add_request = add_request
