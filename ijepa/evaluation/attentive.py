"""The attentive probe: a learnt query attends to frozen patches, followed by an MLP and a linear classifier.

As in V-JEPA's evaluations, for encoders that were not trained to have useful averages of patches. Several learning
rates and weight decays are trained at once; the best is chosen on held-out training images.
"""

import itertools
from typing import NamedTuple

import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.config import Attentive
from ijepa.data.sets import Images, Subset
from ijepa.evaluation import augmentation, specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.models.encoder import LayerNorm
from ijepa.training import curves
from ijepa.util.randomness import Stream, seed_of


class Probe(nn.Module):
    """From patch features [B, N, D] to logits [B, K]."""

    def __init__(self, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.pool = AttentionPoolLatent(width, num_heads=heads, norm_layer=LayerNorm)
        self.head = nn.Linear(width, classes)

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.norm(patches)))
        return logits


class Candidate(NamedTuple):
    """A probe of a label set, with its hyperparameters."""

    label_set: str
    lr: float
    weight_decay: float
    probe: Probe


class AttentiveTask(ConfiguredTask[Attentive]):
    """Accuracy of an attentive probe."""

    name = "attentive"

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy of the probe that is best on held-out training images; all in the details.

        Raw pixels have no patches to read.
        """
        if evaluated.encoder is None:
            return {}
        train, test = ctx.features(evaluated, 1, self.config.batch_size)  # tells which images can be read
        held, kept = augmentation.hold_out(self.config.holdout, len(train.values), ctx.seed)
        candidates = _train(self.config, evaluated, ctx, train, kept)
        source = ctx.data.source
        judged = _predict(self.config, evaluated, ctx, candidates, source.train, train.indices[held])
        predicted = _predict(self.config, evaluated, ctx, candidates, source.val, test.indices)
        found = {}
        for name in train.labels:
            rows = []
            for candidate, chosen, classes in zip(candidates, judged, predicted, strict=True):
                if candidate.label_set == name:
                    score = (chosen == train.labels[name][held]).float().mean().item()
                    rows.append((score, candidate, accuracy(classes, test.labels[name])))
            _, best, measured = max(rows, key=lambda row: row[0])
            listed = [{"lr": c.lr, "weight_decay": c.weight_decay, "holdout": s, "test": m.value} for s, c, m in rows]
            found[name] = TaskResult(
                {specs.ATTENTIVE.name: measured},
                {"chosen": {"lr": best.lr, "weight_decay": best.weight_decay}, "probes": listed},
            )
        return found

    def metrics(self, several: bool) -> list[MetricSpec]:
        """One, of the chosen probe."""
        return [specs.ATTENTIVE]


def _train(
    task: Attentive, evaluated: EvaluatedModel, ctx: EvalContext, train: Features, kept: Tensor
) -> list[Candidate]:
    """Trains on augmented images; each image goes through the encoder once for all probes."""
    device = ctx.runtime.device
    size = augmentation.size_of(task.batch_size, len(kept))
    batches = augmentation.EpochBatchSampler(train.indices[kept], size, task.epochs, ctx.seed, ctx.runtime.ranks)
    augment = augmentation.Augment(task.crop_scale, task.flip, ctx.data.eval_transform)
    assert evaluated.encoder is not None
    embed, spec = ctx.runtime.patches(evaluated.encoder), evaluated.encoder.spec
    rows = augmentation.rows_of(train, len(ctx.data.source.train))
    candidates = []
    with torch.random.fork_rng(devices=[]):
        for name, labels in train.labels.items():
            for lr, decay in itertools.product(task.lr, task.weight_decay):
                torch.manual_seed(seed_of(ctx.seed, Stream.ATTENTIVE_INIT, 0, 0))  # all probes begin as the same one
                candidates.append(
                    Candidate(name, lr, decay, Probe(spec.width, spec.heads, int(labels.max()) + 1).to(device))
                )
    optimizer = torch.optim.AdamW(
        [{"params": list(c.probe.parameters()), "weight_decay": c.weight_decay} for c in candidates], lr=task.lr[0]
    )
    loader = augmentation.loader(ctx, augment, batches, ctx.seed)
    for step, (images, indices) in enumerate(progress(loader, ctx.title(f"{evaluated.name}: attentive"), len(batches))):
        with torch.no_grad():
            patches = embed(images.to(device, non_blocking=True))
        loss = torch.zeros((), device=device)
        for group, candidate in zip(optimizer.param_groups, candidates, strict=True):
            peak = augmentation.rate_of(candidate.lr, batches.size, task.batch_size)
            group["lr"] = curves.warmup("cosine", 0, peak, 0, step, task.warmup_epochs * batches.steps, len(batches))
            labels = train.labels[candidate.label_set][rows[indices]].to(device)
            loss = loss + F.cross_entropy(candidate.probe(patches), labels)
        optimizer.zero_grad()
        loss.backward()  # the sum: each one's gradients are its own
        ctx.runtime.ranks.average_gradients(parameter for c in candidates for parameter in c.probe.parameters())
        optimizer.step()
    return candidates


@torch.inference_mode()
def _predict(
    task: Attentive,
    evaluated: EvaluatedModel,
    ctx: EvalContext,
    candidates: list[Candidate],
    images: Images,
    indices: Tensor,
) -> Tensor:
    """Predicted classes of each probe for each image: [probes, n]."""
    assert evaluated.encoder is not None
    embed, device = ctx.runtime.patches(evaluated.encoder), ctx.runtime.device
    for candidate in candidates:
        candidate.probe.eval()
    ranks = ctx.runtime.ranks
    found = [torch.empty(0, len(candidates), dtype=torch.int64)]
    mine = ranks.share(len(indices))
    for batch, _ in ctx.data.eval_dataloader(Subset(images, indices[mine.start : mine.stop].tolist()), task.batch_size):
        patches = embed(batch.to(device, non_blocking=True))
        found.append(torch.stack([c.probe(patches).argmax(dim=1).cpu() for c in candidates], dim=1))
    return ranks.joined(torch.cat(found)).T
