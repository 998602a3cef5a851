"""Images as arrays: conversion to float32 and between numbers of channels; .npy and .npz files."""

from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from ijepa.data.limits import check_size

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601), as in Pillow."""


def to_float(values: "np.ndarray[Any, Any]", bits: int | None = None) -> Tensor:
    """``values`` as float32: unsigned integers are divided by the maximum of their type; others are unchanged.

    Args:
        values: of any shape.
        bits: number of bits used in unsigned integers; None: all bits of their type.

    Raises:
        ValueError: if values are not real numbers, or floats are not finite.
    """
    kind = values.dtype.kind
    if kind not in "buif":
        raise ValueError(f"contains {values.dtype} instead of real numbers")
    with np.errstate(over="ignore"):
        tensor = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))  # a copy, in this machine's byte order
    if kind == "u":
        tensor /= 2.0 ** (bits or 8 * values.dtype.itemsize) - 1
    if kind == "f" and not tensor.isfinite().all():
        raise ValueError("contains NaN or infinite values; replace them")
    return tensor


def convert_channels(values: Tensor, channels: int, alpha: bool = False, opaque: bool = False) -> Tensor:
    """Converts ``values`` to ``channels``: grey is repeated, RGB becomes luminance, transparent pixels become white.

    Args:
        values: [C, H, W].
        channels: number of channels of the result.
        alpha: whether the last channel is alpha; values must then be in 0..1.
        opaque: whether an opaque alpha channel may be added; values must then be in 0..1.

    Returns:
        [channels, H, W].

    Raises:
        ValueError: if this conversion does not exist; the message names the number of channels to try.
    """
    file_channels = values.shape[-3]
    if alpha and file_channels in (2, 4) and channels in (1, 3):
        cover = values[..., -1:, :, :]
        values = values[..., :-1, :, :] * cover + (1 - cover)
    count = values.shape[-3]
    if count == channels:
        return values
    if alpha and (count, channels) == (2, 4):
        return values[..., [0, 0, 0, 1], :, :]
    if opaque and count in (1, 3) and channels == 4:
        return torch.cat([convert_channels(values, 3), torch.ones_like(values[..., :1, :, :])], dim=-3)
    if (count, channels) == (1, 3):
        return values.expand(*values.shape[:-3], 3, -1, -1)
    if (count, channels) == (3, 1):
        return (values * values.new_tensor(LUMINANCE).view(3, 1, 1)).sum(dim=-3, keepdim=True)
    raise ValueError(
        f"{file_channels} channels cannot become data.channels={channels}; try data.channels={file_channels}"
    )


def read_npy(path: str, channels: int, max_pixels: int | None) -> Tensor:
    """The image in a .npy file: [channels, H, W] float32, from [H, W], [H, W, C] or [C, H, W].

    Raises:
        OSError, ValueError: if it is corrupt, too large, or not an image with this number of channels.
    """
    values = np.load(
        path, mmap_mode="r", allow_pickle=False
    )  # memory-mapped: the header is checked before values are read
    return _to_image(values, _axis_order(values.shape, values.dtype, channels, max_pixels), channels)


def read_npz(path: str, channels: int, max_pixels: int | None) -> Tensor:
    """The image in a .npz file: its only array, or the one named image or arr_0; shapes as in `read_npy`.

    Raises:
        OSError, ValueError, KeyError, zipfile.BadZipFile: as `read_npy`, or if it is unclear which array is the image.
    """
    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
        name = names[0] if len(names) == 1 else next((one for one in ("image", "arr_0") if one in names), None)
        if name is None:
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise ValueError(f"contains {len(names)} arrays ({listed}); name the image's array 'image'")
        with archive.zip.open(f"{name}.npy") as file:
            header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
            shape, _, dtype = header(file)
            order = _axis_order(shape, dtype, channels, max_pixels)
        return _to_image(archive[name], order, channels)


def _axis_order(
    shape: tuple[int, ...], dtype: "np.dtype[Any]", channels: int, max_pixels: int | None
) -> tuple[int, ...]:
    """The indices of the axes in the order channels (if there are three axes), rows, columns.

    The channel axis is the last axis if its length is ``channels``, else the first one if its length is; otherwise the
    same rule is applied to numbers of channels that can be converted to ``channels``.
    """
    if len(shape) == 2:
        order: tuple[int, ...] = (0, 1)
    elif len(shape) == 3:
        lengths = [channels, *{3: [1], 1: [3]}.get(channels, [])]
        axis = next((axis for length in lengths for axis in (2, 0) if shape[axis] == length), None)
        if axis is None:
            smaller = min(shape[0], shape[2])
            problem = f"neither its first nor its last axis has data.channels={channels} entries"
            raise ValueError(f"shape {list(shape)}: {problem}; try data.channels={smaller}")
        order = (2, 0, 1) if axis == 2 else (0, 1, 2)
    else:
        raise ValueError(f"shape {list(shape)}: an image is [H, W], [H, W, C] or [C, H, W]")
    if 0 in shape:
        raise ValueError(f"shape {list(shape)}: the array is empty")
    count = shape[order[0]] if len(shape) == 3 else 1
    check_size(shape[order[-2]], shape[order[-1]], max_pixels, count * max(dtype.itemsize, 4))
    return order


def _to_image(values: "np.ndarray[Any, Any]", order: tuple[int, ...], channels: int) -> Tensor:
    tensor = to_float(values.transpose(order))
    return convert_channels(tensor[None] if tensor.ndim == 2 else tensor, channels)
