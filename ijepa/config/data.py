"""Images and how they enter the model."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.fields import Count, Folder, Pair, Section, Size, Text


class Scenes(Section):
    """What data=scenes renders."""

    train: Count
    """scenes for training"""
    val: Count
    """scenes for validation"""
    min_objects: Annotated[int, Field(ge=1, le=10)]
    """fewest objects in a scene"""
    max_objects: Annotated[int, Field(ge=1, le=10)]
    """most objects in a scene"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """of the scenes; a run's seed leaves them as they are"""
    cache: Text
    """folder that keeps rendered scenes from run to run"""


class Data(Section):
    """Where images come from and how they enter the model."""

    source: Text
    """folder, scenes, digits, a published set such as cifar10, or package.module.function (see docs/data.md)"""
    root: Folder | None
    """folder of images: ROOT/train and ROOT/val, or ROOT alone, split by seed; or of published ones (docs/data.md)"""
    val_fraction: Annotated[float, Field(ge=0, lt=1)]
    """share held out when the source has no validation images of its own"""
    image_size: Size
    """height and width of the model's input, in pixels: n or [h,w]"""
    channels: Count
    """1 (grey), 3 (RGB), 4 (RGBA), images are converted; or as many as the arrays or stacks have"""
    mean: list[float]
    """mean of each channel, of values in 0..1 (floats: as they are); python -m ijepa.data.statistics computes it"""
    std: list[Annotated[float, Field(gt=0)]]
    """standard deviation of each channel"""
    batch_size: Count
    """images per step over all devices and accumulated micro-batches"""
    crop_scale: Pair
    """area of a random crop, as a share of the image"""
    crop_aspect: Pair
    """width / height of a random crop"""
    flip: bool
    """mirror half of the images; not in the published recipe"""
    eval_crop: Annotated[float, Field(gt=0, le=1)]
    """share of the shorter side that the evaluation's centre crop keeps (ImageNet: .875)"""
    eval_resize: Literal["cover", "stretch"] = "cover"  # the defaults here: runs from before these keys had none of it
    """evaluation resizes an image to cover image_size and cuts the centre, or stretches the whole of it (Clevr)"""
    max_pixels: Count | None = None
    """larger images are not decoded but reported as unreadable; null: no limit"""
    depth_root: Folder | None = None
    """folder of depth maps for task=depth, a mirror of root: ROOT/a/x.jpg has its map at DEPTH_ROOT/a/x.png or
    .tif .tiff .npy"""
    depth_scale: Annotated[float, Field(gt=0)] | None = None
    """what integers in a depth map are times: .001 makes metres of millimetres; null: as they are, as floats always"""
    segmentation_root: Folder | None = None
    """folder of class indices for task=segmentation, a mirror of root as depth_root; 255 is not counted"""
    workers: Annotated[int, Field(ge=0)] | None
    """processes that read images, per device; null: one per core, at most 8. Never changes results"""
    scenes: Scenes | None = None
    """the rendered scenes of data=scenes"""
