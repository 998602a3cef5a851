"""task=map: a page with a 2-D map of images by their features, and a list of outliers."""

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ijepa import pictures
from ijepa.config import Map
from ijepa.data.heldout import evenly_spaced
from ijepa.data.sets import UNLABELLED, Images
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.knn import neighbours
from ijepa.evaluation.task import FileTask
from ijepa.util.files import write_csv, write_text

PAGE, TABLE = "map.html", "outliers.csv"
TEMPLATE = Path(__file__).parent / "assets" / PAGE
SIDE, COLUMNS, ROWS = 48, 32, 32
"""Sides of a thumbnail in pixels, and of a sheet of thumbnails in thumbnails."""
SHOWN_OUTLIERS = 24
COMPARED = 20_000
"""Images among which an image's nearest are sought, at most."""


class MapTask(FileTask[Map]):
    """A page with a map, and a table of all images by their distance from their nearest neighbours."""

    name = "map"

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Writes the page and the table; not for baselines."""
        if model.baseline:
            return []
        splits = zip(
            ("train", "val"), (ctx.data.source.train, ctx.data.source.val),
            ctx.features(model, ctx.layers, self.config.batch_size), strict=True,
        )  # fmt: skip
        values, places = [], list[tuple[str, Images, int]]()
        for part, images, found in splits:
            if len(found.values):
                values.append(found.values)
            places += [(part, images, index) for index in found.indices.tolist()]
        features = torch.cat(values)
        distance = isolation(features, self.config.neighbours)
        order = distance.argsort(descending=True, stable=True).tolist()
        rows = [
            [images.name(index), part, f"{distance[row]:.6f}"] for row in order for part, images, index in [places[row]]
        ]
        write_csv(folder / TABLE, [["file", "part", "distance"], *rows])
        odd = order[:SHOWN_OUTLIERS]
        shown = sorted({*evenly_spaced(len(places), self.config.images), *odd})
        page = self._page(ctx, features[shown], [places[row] for row in shown], distance[shown])
        page["odd"] = [shown.index(row) for row in odd]
        page["about"] = f"{len(shown)} of {len(places)} images; features of the {model.name}, t-SNE"
        text = json.dumps(page, ensure_ascii=False).replace("<", "\\u003c")  # no name is markup
        write_text(folder / PAGE, TEMPLATE.read_text(encoding="utf-8").replace("DATA", text, 1))
        return [folder / PAGE, folder / TABLE]

    def _page(
        self, ctx: EvalContext, features: Tensor, places: list[tuple[str, Images, int]], distance: Tensor
    ) -> dict[str, Any]:
        """What the page shows."""
        x, y = embedded(features, self.config.perplexity, ctx.seed).T.tolist()
        labels = {}
        for name, classes in ctx.data.source.classes.items():
            index = [int(images.labels[name][i]) if name in images.labels else UNLABELLED for _, images, i in places]
            labels[name] = {"names": [_shown(label) for label in classes], "index": index}
        transform = ctx.data.eval_transform
        thumbnails = (pictures.rgb(transform(images.read(index))[None])[0] for _, images, index in places)
        names = [_shown(images.name(index)) for _, images, index in places]
        return {
            "names": names, "parts": [part for part, *_ in places], "x": x, "y": y, "labels": labels,
            "distance": distance.tolist(), "sheets": sheets(thumbnails), "side": SIDE, "columns": COLUMNS,
            "perSheet": COLUMNS * ROWS,
        }  # fmt: skip


def isolation(features: Tensor, count: int) -> Tensor:
    """The mean cosine distance of each row of ``features`` [n, D], less their mean, to its ``count`` nearest: [n].

    Among more than `COMPARED` rows the nearest of that many, evenly spaced, so that time grows with n.
    """
    if len(features) < 3:
        return torch.zeros(len(features))
    chosen = evenly_spaced(len(features), COMPARED)
    similarity = torch.cat([chunk for chunk, _ in neighbours(features[chosen], features, count + 1, center=True)])
    is_chosen = torch.zeros(len(features), dtype=torch.bool)
    is_chosen[chosen] = True  # the nearest is the image itself
    others = torch.where(is_chosen[:, None], similarity[:, 1:], similarity[:, :-1])
    return (1 - others).clamp(min=0).mean(dim=1)


def embedded(features: Tensor, perplexity: float, seed: int) -> np.ndarray[Any, Any]:
    """t-SNE of ``features`` [n, D]: [n, 2] in 0..1."""
    from sklearn.manifold import TSNE

    if len(features) < 4:
        return np.linspace(0, 1, 2 * len(features)).reshape(-1, 2)
    fitting = min(perplexity, (len(features) - 1) / 3)
    found = TSNE(perplexity=fitting, init="pca", random_state=seed % 2**32).fit_transform(features.numpy())
    span = np.ptp(found, axis=0)
    return np.asarray((found - found.min(axis=0)) / np.where(span > 0, span, 1), dtype=np.float64).round(5)


def sheets(thumbnails: Iterable[pictures.Picture]) -> list[str]:
    """Pictures [H, W, 3] as data URLs of JPEG sheets, `COLUMNS` x `ROWS` squares each; others are padded with grey."""
    urls, part = [], list[Image.Image]()
    for pixels in thumbnails:
        image = Image.fromarray((pixels * 255).round().astype(np.uint8))
        scale = SIDE / max(image.size)
        part.append(image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1))))
        if len(part) == COLUMNS * ROWS:
            urls.append(_sheet(part))
            part = []
    return [*urls, *([_sheet(part)] if part else [])]


def _sheet(images: list[Image.Image]) -> str:
    sheet = Image.new("RGB", (COLUMNS * SIDE, -(-len(images) // COLUMNS) * SIDE), (127, 127, 127))
    for number, image in enumerate(images):
        row, column = divmod(number, COLUMNS)
        sheet.paste(image, (column * SIDE + (SIDE - image.width) // 2, row * SIDE + (SIDE - image.height) // 2))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _shown(name: str) -> str:
    return name.encode(errors="replace").decode()
