"""What do the scenes look like? ``python -m benchmarks.scenes_sheet`` draws docs/scenes.png, pixel by pixel."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from ijepa.data.scenes import COLOURS, SHAPES, RenderedScene, Settings, class_names, render

SIDE, SMALL, BORDER, CAPTION = 200, 148, 8, 18
COLUMNS, ROWS = 6, 3
SEED = 0
EXPLAINED = 1, 15
NEAR, FAR = 6.5, 17.0
OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "scenes.png"


def panels(rendered: RenderedScene) -> list[tuple[str, Image.Image]]:
    """Image, depth, instances and boxes, with captions."""
    hues = np.concatenate([np.full((1, 3), 0.9), colormaps["tab10"](np.arange(10))[:, :3]])
    colours = (255 * hues).astype(np.uint8)
    depth = colormaps["magma_r"](np.clip((rendered.depth - NEAR) / (FAR - NEAR), 0, 1))[..., :3]
    boxed = Image.fromarray(rendered.image)
    draw = ImageDraw.Draw(boxed)
    for number, (x0, y0, x1, y1) in enumerate(rendered.boxes, start=1):
        draw.rectangle((x0 - 1, y0 - 1, x1, y1), outline=tuple(colours[number].tolist()), width=2)
    return [
        ("image", Image.fromarray(rendered.image)),
        ("depth", Image.fromarray((255 * depth).astype(np.uint8))),
        ("instances", Image.fromarray(colours[rendered.instances])),
        ("boxes", boxed),
    ]


def main() -> None:
    step, small = SIDE + BORDER, SMALL + BORDER
    width = COLUMNS * step - BORDER
    sheet = Image.new("RGB", (width, ROWS * step + CAPTION + SMALL), "white")
    for index in range(COLUMNS * ROWS):
        picture = Image.fromarray(render(Settings(image_size=(SIDE, SIDE)), SEED, index).image)
        sheet.paste(picture, (index % COLUMNS * step, index // COLUMNS * step))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, index in enumerate(EXPLAINED):
        rendered = render(Settings(image_size=(SMALL, SMALL)), SEED, index)
        for column, (caption, picture) in enumerate(panels(rendered), start=4 * row):
            x = column * small
            draw.text((x + SMALL / 2, ROWS * step + CAPTION / 2 - 2), caption, "black", font, anchor="mm")
            sheet.paste(picture, (x, ROWS * step + CAPTION))
        labels = rendered.labels
        bin_ = class_names(rendered.settings, "distance")[labels["distance"]]
        print(f"scene {index}: {len(rendered.boxes)} objects; the nearest: {COLOURS[labels['colour']]}", end=" ")
        print(f"{SHAPES[labels['shape']]}, distance {bin_}")
    sheet.save(OUTPUT, optimize=True)
    print(OUTPUT)


if __name__ == "__main__":
    main()
