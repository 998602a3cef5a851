"""Checks of a state dict against the network that it is for."""

from collections.abc import Mapping

import torch
from torch import Tensor

STORED_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types of weights that can be loaded without knowing a scale, as quantised ones need."""


def check_state_dict(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], network: str) -> None:
    """Raises ValueError, with one line, if ``state`` has other names or shapes, or is quantised or sparse."""
    missing, extra = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{min(missing)}{more} of the {network} is missing")
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise ValueError(f"the {network} has {min(extra)}{more}, which I-JEPA's does not have")
    for name, tensor in state.items():
        known = tensor.dtype in STORED_DTYPES or tensor.dtype == expected[name].dtype
        if tensor.layout != torch.strided or tensor.is_quantized or not known:
            kind = str(tensor.layout if tensor.layout != torch.strided else tensor.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name} of the {network} is stored as {kind}, not as plain floats; save it as float32 or bfloat16"
            )
        if tensor.shape != expected[name].shape:
            shapes = f"[{_shape(expected[name])}], found [{_shape(tensor)}]"
            raise ValueError(f"{name} of the {network} does not match the sizes stored with it: expected {shapes}")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
