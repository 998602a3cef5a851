"""The attentive probe (`AttentiveProbe`) on frozen patches.

The protocol is that of V-JEPA's evaluations, for encoders whose average-pooled patches were not trained to be useful.
Several learning rates and weight decays are trained at once; the best is chosen on held-out training images.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.config import Attentive
from ijepa.data.sets import Images, Subset
from ijepa.evaluation import augmentation, calibration, specs
from ijepa.evaluation.classifiers import ClassifierTask, Trained
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import MetricSpec
from ijepa.models.attentive import AttentiveProbe
from ijepa.training import curves
from ijepa.util.randomness import Stream, seed_of

CALIBRATION_IMAGES = 10_000
"""Held-out training images that a temperature is fitted to, at most."""


class Candidate(NamedTuple):
    """A probe for one label set, and its hyperparameters."""

    label_set: str
    lr: float
    weight_decay: float
    probe: AttentiveProbe

    @property
    def setting(self) -> dict[str, float]:
        """The hyperparameters."""
        return {"lr": self.lr, "weight_decay": self.weight_decay}


class AttentiveTask(ClassifierTask[Attentive]):
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
        asked = train.indices[holdout_rows]
        holdout_classes, _ = _predict(self.config, model, ctx, candidates, source.train, asked)
        chosen, held_out = dict[str, Candidate](), dict[Candidate, float]()
        for candidate, on_holdout in zip(candidates, holdout_classes, strict=True):
            name = candidate.label_set
            held_out[candidate] = (on_holdout == train.labels[name][holdout_rows]).float().mean().item()
            if name not in chosen or held_out[candidate] > held_out[chosen[name]]:
                chosen[name] = candidate
        kept = list(chosen.values())
        _, known = _predict(self.config, model, ctx, kept, source.train, asked[:CALIBRATION_IMAGES], kept)
        test_classes, logits = _predict(self.config, model, ctx, candidates, source.val, test.indices, kept)
        accuracies = {
            candidate: accuracy(on_test, test.labels[candidate.label_set])
            for candidate, on_test in zip(candidates, test_classes, strict=True)
        }
        results, self.trained = {}, Trained({}, {}, 1, {"images": len(train_rows), "chosen": {}})
        for name, best in chosen.items():
            labels = train.labels[name][holdout_rows][:CALIBRATION_IMAGES]
            temperature = calibration.temperature(known[best], labels)
            self.trained.add(name, best.probe.cpu(), temperature, best.setting)
            listed = [
                {**c.setting, "holdout": held_out[c], "test": accuracies[c].value}
                for c in candidates
                if c.label_set == name
            ]
            details = calibration.details(logits[best], test.labels[name], temperature)
            self.trained.record(name, accuracies[best], len(logits[best]), details)
            results[name] = TaskResult(
                {specs.ATTENTIVE.name: accuracies[best]}, {"chosen": best.setting, "probes": listed, **details}
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
    config: Attentive, model: EvaluatedModel, ctx: EvalContext, candidates: list[Candidate], images: Images,
    indices: Tensor, with_logits: Sequence[Candidate] = (),
) -> tuple[Tensor, dict[Candidate, Tensor]]:  # fmt: skip
    """The class that each probe predicts for each image, [probes, n], and logits [n, K] of the probes asked for."""
    assert model.encoder is not None
    embed, device = ctx.runtime.patches(model.encoder), ctx.runtime.device
    for candidate in candidates:
        candidate.probe.eval()
    ranks = ctx.runtime.ranks
    classes = [torch.empty(0, len(candidates), dtype=torch.int64)]
    logits: dict[Candidate, list[Tensor]] = {candidate: [] for candidate in with_logits}
    own = ranks.share(len(indices))
    for batch, _ in ctx.data.eval_dataloader(Subset(images, indices[own.start : own.stop].tolist()), config.batch_size):
        patches = embed(batch.to(device, non_blocking=True))
        found = {candidate: candidate.probe(patches).cpu() for candidate in candidates}
        classes.append(torch.stack([values.argmax(dim=1) for values in found.values()], dim=1))
        for candidate, parts in logits.items():
            parts.append(found[candidate])
    joined = {candidate: ranks.joined(torch.cat(parts or [torch.empty(0)])) for candidate, parts in logits.items()}
    return ranks.joined(torch.cat(classes)).T, joined
