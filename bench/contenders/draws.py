"""Where a torch loop's normals come from: a stream a seed, read tensor by tensor. Tests put Onward's in place."""

from collections.abc import Callable

import torch

from bench.contenders.loops import PLACE

Stream = Callable[[int], Callable[[tuple[int, ...]], torch.Tensor]]  # seed -> (shape -> the stream's next normals)


def seeded(seed: int) -> Callable[[tuple[int, ...]], torch.Tensor]:
    """torch's own generator, as the official code draws: the same seed gives the same numbers again. float32,
    on the device that `loops.placed` says."""
    device, _ = PLACE.get()
    generator = torch.Generator(device).manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator, device=device)
