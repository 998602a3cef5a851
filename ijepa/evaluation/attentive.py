"""The attentive probe: a learnt query attends to frozen patches, followed by an MLP and a linear classifier.

The protocol is that of V-JEPA's evaluations, for encoders whose average-pooled patches were not trained to be useful.
Several learning rates and weight decays are trained at once; the best is chosen on held-out training images.
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


class AttentiveProbe(nn.Module):
    """An attentive probe: patch features [B, N, D] to logits [B, K]."""

    def __init__(self, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.pool = AttentionPoolLatent(width, num_heads=heads, norm_layer=LayerNorm)
        self.head = nn.Linear(width, classes)

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.norm(patches)))
        return logits


class Candidate(NamedTuple):
    """A probe for one label set, and its hyperparameters."""

    label_set: str
    lr: float
    weight_decay: float
    probe: AttentiveProbe


class AttentiveTask(ConfiguredTask[Attentive]):
    """Accuracy of an attentive probe."""

    name = "attentive"

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy of the probe that is best on held-out training images; all in the details.

        Raw pixels are skipped.
        """
        if model.encoder is None:
            return {}
        train, test = ctx.features(model, 1, self.config.batch_size)  # only to know which images are readable
        holdout_rows, train_rows = augmentation.hold_out(self.config.holdout, len(train.values), ctx.seed)
        candidates = _train(self.config, model, ctx, train, train_rows)
        source = ctx.data.source
        holdout_classes = _predict(self.config, model, ctx, candidates, source.train, train.indices[holdout_rows])
        test_classes = _predict(self.config, model, ctx, candidates, source.val, test.indices)
        results = {}
        for name in train.labels:
            scores = []
            for candidate, on_holdout, on_test in zip(candidates, holdout_classes, test_classes, strict=True):
                if candidate.label_set == name:
                    holdout = (on_holdout == train.labels[name][holdout_rows]).float().mean().item()
                    scores.append((holdout, candidate, accuracy(on_test, test.labels[name])))
            _, best, result = max(scores, key=lambda score: score[0])
            listed = [{"lr": c.lr, "weight_decay": c.weight_decay, "holdout": s, "test": r.value} for s, c, r in scores]
            results[name] = TaskResult(
                {specs.ATTENTIVE.name: result},
                {"chosen": {"lr": best.lr, "weight_decay": best.weight_decay}, "probes": listed},
            )
        return results

    def metrics(self, several: bool) -> list[MetricSpec]:
        """The accuracy of the chosen probe."""
        return [specs.ATTENTIVE]


def _train(
    config: Attentive, model: EvaluatedModel, ctx: EvalContext, train: Features, train_rows: Tensor
) -> list[Candidate]:
    """Trains all probes on augmented images; each image passes the encoder once for all of them."""
    device = ctx.runtime.device
    size = augmentation.capped_batch_size(config.batch_size, len(train_rows))
    batches = augmentation.EpochBatchSampler(
        train.indices[train_rows], size, config.epochs, ctx.seed, ctx.runtime.ranks
    )
    augment = augmentation.Augment(config.crop_scale, config.flip, ctx.data.eval_transform)
    assert model.encoder is not None
    embed, spec = ctx.runtime.patches(model.encoder), model.encoder.spec
    row_of = augmentation.row_by_index(train, len(ctx.data.source.train))
    candidates = []
    with torch.random.fork_rng(devices=[]):
        for name, labels in train.labels.items():
            for lr, decay in itertools.product(config.lr, config.weight_decay):
                torch.manual_seed(seed_of(ctx.seed, Stream.ATTENTIVE_INIT, 0, 0))  # the same for all probes
                candidates.append(
                    Candidate(name, lr, decay, AttentiveProbe(spec.width, spec.heads, int(labels.max()) + 1).to(device))
                )
    optimizer = torch.optim.AdamW(
        [{"params": list(c.probe.parameters()), "weight_decay": c.weight_decay} for c in candidates], lr=config.lr[0]
    )
    loader = augmentation.loader(ctx, augment, batches, ctx.seed)
    for step, (images, indices) in enumerate(progress(loader, ctx.title(f"{model.name}: attentive"), len(batches))):
        with torch.no_grad():
            patches = embed(images.to(device, non_blocking=True))
        loss = torch.zeros((), device=device)
        for group, candidate in zip(optimizer.param_groups, candidates, strict=True):
            peak = augmentation.scaled_lr(candidate.lr, batches.size, config.batch_size)
            group["lr"] = curves.warmup("cosine", 0, peak, 0, step, config.warmup_epochs * batches.steps, len(batches))
            labels = train.labels[candidate.label_set][row_of[indices]].to(device)
            loss = loss + F.cross_entropy(candidate.probe(patches), labels)
        optimizer.zero_grad()
        loss.backward()  # a sum of losses: no probe changes another's gradients
        ctx.runtime.ranks.average_gradients(parameter for c in candidates for parameter in c.probe.parameters())
        optimizer.step()
    return candidates


@torch.inference_mode()
def _predict(
    config: Attentive,
    model: EvaluatedModel,
    ctx: EvalContext,
    candidates: list[Candidate],
    images: Images,
    indices: Tensor,
) -> Tensor:
    """The class that each probe predicts for each image: [probes, n]."""
    assert model.encoder is not None
    embed, device = ctx.runtime.patches(model.encoder), ctx.runtime.device
    for candidate in candidates:
        candidate.probe.eval()
    ranks = ctx.runtime.ranks
    classes = [torch.empty(0, len(candidates), dtype=torch.int64)]
    own = ranks.share(len(indices))
    for batch, _ in ctx.data.eval_dataloader(Subset(images, indices[own.start : own.stop].tolist()), config.batch_size):
        patches = embed(batch.to(device, non_blocking=True))
        classes.append(torch.stack([c.probe(patches).argmax(dim=1).cpu() for c in candidates], dim=1))
    return ranks.joined(torch.cat(classes)).T
