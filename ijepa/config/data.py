"""Configuration of images and their preprocessing."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.fields import Count, Folder, Pair, Positive, Scale, Section, Signed, Size, Text, Workers
from ijepa.util.sizes import MAX_BATCH

MAX_CACHE = 2**20
"""In MiB; a terabyte."""


class Scenes(Section):
    """The rendered scenes of data=scenes."""

    train: Count
    """number of training scenes"""
    val: Count
    """number of validation scenes"""
    min_objects: Annotated[int, Field(ge=1, le=10)]
    """minimum number of objects in a scene"""
    max_objects: Annotated[int, Field(ge=1, le=10)]
    """maximum number of objects in a scene"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """seed of the scenes; they do not depend on the run's seed"""
    cache: Text
    """folder that caches rendered scenes between runs"""


class Data(Section):
    """The data source and its preprocessing."""

    source: Text
    """folder, list, scenes, digits, a published set such as cifar10, or package.module.function (see docs/data.md)"""
    root: Folder | None
    """folder of images: ROOT/train and ROOT/val, or ROOT alone, split by seed; or of a published set; or a list
    (docs/data.md)"""
    val: Text | None = None
    """folder in ROOT with the validation images, such as test; null: val, valid, validation or test; data=list: a list
    beside ROOT"""
    labels: Folder | None = None
    """CSV or Parquet file with the columns file and class, or several label sets; not class folders (docs/data.md)"""
    val_fraction: Annotated[float, Field(ge=0, lt=1)]
    """fraction of images held out for validation, if the source has no validation images"""
    image_size: Size
    """height and width of the model's input, in pixels: n or [h,w]"""
    channels: Count
    """1 (grey), 3 (RGB), 4 (RGBA): images are converted; for arrays and TIFF stacks: their number of channels"""
    mean: list[Signed]
    """mean of each channel, for values in 0..1 (floats: unscaled); python -m ijepa.data.statistics computes it"""
    std: list[Scale]
    """standard deviation of each channel"""
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH, strict=True)]
    """effective (global) batch size: images per optimiser step, over all devices and accumulated micro-batches"""
    crop_scale: Pair
    """range of a random crop's area, as a fraction of the image"""
    crop_aspect: Pair
    """range of a random crop's aspect ratio, width / height"""
    flip: bool
    """random horizontal flip; not in the published recipe"""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """random change of brightness, contrast and saturation, by up to this fraction; not in the published recipe"""
    eval_crop: Annotated[float, Field(ge=0.05, le=1)]
    """fraction of the shorter side that the evaluation's centre crop keeps (ImageNet: .875)"""
    eval_resize: Literal["cover", "stretch"] = "cover"  # the defaults in this class are for runs older than their keys
    """evaluation resizes an image to cover image_size and crops the centre, or stretches the whole image (Clevr)"""
    max_pixels: Count | None = None
    """images with more pixels are not decoded but reported as unreadable; null: no limit"""
    cache_mib: Annotated[int, Field(ge=0, le=MAX_CACHE)] = 0
    """memory per device in MiB for decoded images, an equal part for each; larger images are not cached; 0: no cache"""
    max_deviations: Scale | None = None
    """float images with values further from mean, in units of std, are reported as unreadable; null: no limit"""
    depth_root: Folder | None = None
    """folder of depth maps for task=depth, which mirrors root: the map of ROOT/a/x.jpg is DEPTH_ROOT/a/x.png or
    .tif .tiff .npy"""
    depth_scale: Positive | None = None
    """factor for integer depth maps: .001 turns millimetres into metres; null: 1. Floats are never scaled"""
    segmentation_root: Folder | None = None
    """folder of class indices for task=segmentation, which mirrors root as depth_root does; 255 is ignored"""
    workers: Workers | None
    """data loader processes per device; null: one per core, at most 8. Never changes results"""
    worker_timeout: Positive = 60.0
    """seconds without progress after which the run names the files that its processes read, or ends if none works"""
    scenes: Scenes | None = None
    """the rendered scenes of data=scenes"""
