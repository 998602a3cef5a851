"""What evaluation tasks train is kept as a file that can be used: `ijepa.load_classifier`."""

from pathlib import Path
from typing import Any

from torch import nn

from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.interop.classifier import FILE, Description, ImageClassifier, LabelSet, names_of, write_classifier


def save_classifier(
    heads: dict[str, nn.Linear], temperatures: dict[str, float | None], model: EvaluatedModel, ctx: EvalContext,
    folder: Path, facts: dict[str, Any],
) -> Path:  # fmt: skip
    """Writes classifiers of pooled features to ``folder``; returns the file.

    Args:
        heads: from [B, D * layers] to [B, K], by label set.
        temperatures: by label set; None: not calibrated.
        model: whose encoder; not raw pixels.
        ctx: the images and how they are transformed.
        folder: where to write.
        facts: how they were trained.
    """
    assert model.encoder is not None
    source = ctx.data.source
    sets = {name: LabelSet(names_of(source.classes.get(name), head.out_features), temperatures[name])
            for name, head in heads.items()}  # fmt: skip
    transform = ctx.data.eval_transform
    shape = transform.size, transform.crop, transform.stretch
    description = Description(sets, *shape, ctx.layers, ctx.max_pixels, facts)
    path = folder / FILE.replace(".", f"{ctx.file_suffix}.")
    write_classifier(path, ImageClassifier(model.encoder, heads, description), ctx.encoder)
    return path
