"""Half precision while training, where it is worth having."""

from contextlib import AbstractContextManager, nullcontext

import torch


def quick(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in less time than f32. A CPU without the instructions takes twice as long."""
    if device.type != "cpu":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def halves(device: torch.device | str, wanted: bool = True) -> AbstractContextManager[object]:
    """bf16 autocast where it is `wanted` and quick; f32 elsewhere."""
    device = torch.device(device)
    return torch.autocast(device.type, torch.bfloat16) if wanted and quick(device) else nullcontext()
