"""A trial bench for recipes: I-JEPA's networks and masks in a plain loop, with ideas that are not in the software.

python -m benchmarks.learning.prototype cifar10 --root FOLDER --name whitened --set stat=whiten --budget 1e13

Rows go to the same CSV file as those of `benchmarks.learning`; ``OPTIONS`` are all settings.
"""

import argparse
import copy
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.learning.__main__ import DATA
from benchmarks.learning.images import labelled, load
from benchmarks.learning.rows import append_row, is_finished, run, shown_command
from ijepa import compose_config
from ijepa.data.sets import CLASS
from ijepa.evaluation import tasks
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.runtime import Runtime
from ijepa.masking import MultiBlock
from ijepa.models.encoder import Encoder, LayerNorm
from ijepa.models.initialisation import initialise
from ijepa.models.positions import PositionTable
from ijepa.models.predictor import CrossBlock
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.models.targets import pixel_targets
from ijepa.models.transformer import gather, transformer_flops, write_out_attention
from ijepa.run import build
from ijepa.run.encoders import spec as encoder_spec
from ijepa.training import optimizer as optim
from ijepa.training.terms import covariance_term, variance_term, within_group_covariance
from ijepa.util.errors import UserError

OPTIONS: dict[str, Any] = {
    "lr": 1.5e-3, "wd": 0.05, "batch": 64, "warmup": 0.1, "opt": "adamw", "clip": 0.0, "lr_end": 0.0, "beta2": 0.999,
    "ema0": 0.98, "ema1": 0.999, "init": "xavier", "width": 96, "depth": 6, "heads": 3,
    "pred_width": 48, "pred_depth": 3, "cross": 0,
    "mask": "random", "context": 26, "targets": 38, "masks": 1,
    "target": "latent", "depths": "6", "layer_norm": 1, "inst": 0, "avg": 0, "stat": "none",
    "stat_decay": 0.99, "eps": 1e-4,
    "tokens": 1.0, "pixels": 0.0,
    "image": 0.0, "image_stat": "whiten", "tau": 0.0,
    "var": 0.5, "cov": 0.02, "reg": "tokens", "reg_decay": 0.0, "loss": "l2", "nce": 0.0, "nce_tau": 0.2,
    "white": 0.0, "white_model": 0.0, "white_freeze": 0,
    "view": 0.0, "proj": 0, "sym": 0,
    "crop": 0.3, "flip": 0, "jitter": 0.0,
    "reg_end": 1.0, "pool_var": 0.0, "pool_cov": 0.0, "rope": 0, "layers": 0,
    "teacher": "", "teacher_width": 0, "start": "", "save": "", "bottle": 0, "switch": 0.0, "visible": 0, "partial": 0,
    "clusters": 0, "cluster_weight": 0.2, "token_norm": 0, "bf16": 0,
    "own": 0.0, "average": 0.0,
}  # fmt: skip
GRID = 8


class Predictor(nn.Module):
    """One pass for all targets and, with ``image``, a query for the whole image."""

    table: Tensor

    def __init__(self, width: int, o: dict[str, Any], outputs: int) -> None:
        super().__init__()
        p = o["pred_width"]
        self.embed = nn.Linear(width, p)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, p))
        self.image_token = nn.Parameter(torch.zeros(1, 1, p))
        self.cross = bool(o["cross"])
        self.blocks = nn.ModuleList(
            CrossBlock(p, o["heads"], 4.0)
            if self.cross
            else Block(p, o["heads"], 4.0, qkv_bias=True, norm_layer=LayerNorm)
            for _ in range(o["pred_depth"])
        )
        self.norm, self.proj, self.image_proj = LayerNorm(p), nn.Linear(p, outputs), nn.Linear(p, width)
        self.register_buffer("table", PositionTable(p, (GRID, GRID), "index")((GRID, GRID), torch.device("cpu")))
        for token in (self.mask_token, self.image_token):
            nn.init.trunc_normal_(token, std=0.02)
        initialise(self, self.blocks, o["init"])

    def forward(self, context: Tensor, indices: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        table = self.table.expand(len(context), -1, -1)
        visible = self.embed(context) + (gather(table, indices) if len(indices) else 0)
        queries = torch.cat(
            [self.image_token.expand(len(context), -1, -1), self.mask_token + gather(table, targets)], 1
        )
        if self.cross:
            for block in self.blocks:
                queries = block(queries, visible)
        else:
            tokens = torch.cat([visible, queries], dim=1)
            for block in self.blocks:
                tokens = block(tokens)
            queries = tokens[:, visible.shape[1] :]
        queries = self.norm(queries)
        return self.proj(queries[:, 1:]), self.image_proj(queries[:, 0])


def hidden(
    encoder: Encoder, images: Tensor, depths: list[int], full: bool = True, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs of blocks (0: the embedding; the last through the final norm), and the last one.

    ``seen``: patches [B, S] that the encoder gets; None: all.
    """
    tokens = encoder.embed(images)
    tokens = tokens if seen is None else gather(tokens, seen)
    found = {0: tokens}
    deepest = len(encoder.blocks) if full else max(depths)
    for number, block in enumerate(encoder.blocks[:deepest], start=1):
        tokens = block(tokens)
        found[number] = tokens
    last = encoder.final(tokens)
    if deepest == len(encoder.blocks):
        found[deepest] = last
    return torch.stack([found[depth] for depth in depths], dim=2), last  # [B, N, L, D]


class Statistics:
    """Running mean at each position and pooled covariance around it, for targets [B, N, D]."""

    def __init__(self, kind: str, decay: float, eps: float) -> None:
        self.kind, self.decay, self.eps, self.steps = kind, decay, eps, 0
        self.mean = self.cov = torch.zeros(())

    def standardised_part(self, x: Tensor, seen: Tensor) -> Tensor:
        """ "standard" for tokens [B, S, D] at some positions [B, S]."""
        self.steps += 1
        rate = max(1 - self.decay, 1 / self.steps)
        flat, at = x.flatten(0, 1), seen.flatten()
        sums = torch.zeros(GRID * GRID, x.shape[-1]).index_add_(0, at, flat)
        count = at.bincount(minlength=GRID * GRID)[:, None]
        mean = sums / count.clamp(min=1)
        self.mean = torch.where(count > 0, self.mean + rate * (mean - self.mean), self.mean)
        var = ((flat - mean[at]).square().sum(0) / (len(flat) - (count > 0).sum())).detach()
        self.cov = self.cov + rate * (var - self.cov)
        return (x - self.mean[seen]) / (self.cov + 1e-6).sqrt()

    def __call__(self, x: Tensor) -> Tensor:
        if self.kind == "none":
            return x
        self.steps += 1
        rate = max(1 - self.decay, 1 / self.steps)
        mean = x.mean(0)
        centred = (x - mean).flatten(0, 1)
        cov = centred.T @ centred / len(centred) * (len(x) / max(len(x) - 1, 1))
        self.mean = self.mean + rate * (mean - self.mean)
        self.cov = self.cov + rate * (cov - self.cov)
        if self.kind == "center":
            return x - self.mean
        if self.kind == "standard":
            return (x - self.mean) / (self.cov.diagonal() + 1e-6).sqrt()
        values, vectors = torch.linalg.eigh(self.cov.double())
        values = values + self.eps * values.mean()
        return (x - self.mean) @ (vectors * values.rsqrt() @ vectors.T).float()


def crops(images: Tensor, o: dict[str, Any], generator: torch.Generator) -> Tensor:
    """Random resized crops of float images [B, C, H, W], shared by context and target."""
    b = len(images)
    u = torch.rand(b, 4, generator=generator)
    area = o["crop"] + (1 - o["crop"]) * u[:, 0]
    aspect = torch.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * u[:, 1])
    h, w = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    y, x = (u[:, 2] * 2 - 1) * (1 - h), (u[:, 3] * 2 - 1) * (1 - w)
    sign = torch.where(torch.rand(b, generator=generator) < 0.5, -1.0, 1.0) if o["flip"] else torch.ones(b)
    zero = torch.zeros(b)
    theta = torch.stack([torch.stack([w * sign, zero, x], 1), torch.stack([zero, h, y], 1)], 1)
    found = F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), mode="bilinear",
                          padding_mode="reflection", align_corners=False)  # fmt: skip
    if o["jitter"]:
        j = o["jitter"]
        r = torch.rand(b, 3, 1, 1, 1, generator=generator) * 2 - 1
        mean = found.mean((1, 2, 3), keepdim=True)
        found = (found - mean) * (1 + j * r[:, 0]) + mean * (1 + j * r[:, 1])
        grey = found.mean(1, keepdim=True)
        found = grey + (found - grey) * (1 + j * r[:, 2])
    return found


def whiten_embedding(encoder: Encoder, source: Any, spec: Any, eps: float, correlation: float = 0.0) -> None:
    """Initialises the patch embedding so that its outputs are uncorrelated and of unit variance."""
    chosen = np.ascontiguousarray(source.train.images[np.arange(0, len(source.train.images), 20)])
    images = torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    patches = F.unfold(images, 4, stride=4).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T.double() @ (patches - mean).double() / len(patches))
    if correlation:  # no data: neighbouring pixels and channels are correlated
        at = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1).flatten(0, 1)
        channels = correlation * torch.ones(3, 3) + (1 - correlation) * torch.eye(3)
        model = torch.kron(channels, correlation ** torch.cdist(at, at)).double()
        values, vectors = torch.linalg.eigh(model)
        mean = torch.zeros(48)
    whitening = (vectors * (values + eps * values.mean()).rsqrt()).T.float()  # [48, 48]
    proj = encoder.patch_embed.proj
    rotation = torch.linalg.qr(torch.randn(proj.out_channels, whitening.shape[0]))[0]
    weight = rotation @ whitening * (proj.out_channels / whitening.shape[0]) ** 0.5 * 0.7
    proj.weight.data.copy_(weight.view_as(proj.weight))
    proj.bias.data.copy_(-weight @ mean)


class Clusters(nn.Module):
    """Online clusters of targets, as in CAPI (2502.08769): assignments by Sinkhorn's algorithm over a batch."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(F.normalize(torch.randn(count, width), dim=-1))

    def forward(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Assignments [B, N, K] of targets [B, N, D], without a gradient, and the loss of the prototypes."""
        cosines = F.normalize(targets, dim=-1).flatten(0, 1) @ F.normalize(self.prototypes, dim=-1).T
        with torch.no_grad():
            q = (cosines / 0.06).softmax(-1)
            for _ in range(3):
                q = q / q.sum(0, keepdim=True).clamp(min=1e-8)
                q = q / q.sum(1, keepdim=True)
        loss = -(q * F.log_softmax(cosines / 0.12, dim=-1)).sum(-1).mean()
        return q.unflatten(0, targets.shape[:2]), loss


class Masker:
    def __init__(self, o: dict[str, Any], seed: int) -> None:
        self.o, self.rng = o, np.random.default_rng(seed)
        if o["mask"] == "multiblock":
            self.sampler = MultiBlock((GRID, GRID), 4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), None, "drop")
            self.step, self.seed = 0, seed

    def __call__(self, count: int) -> tuple[Tensor, Tensor]:
        """Context [B, C] and target indices [B, K]."""
        o, n = self.o, GRID * GRID
        if o["mask"] == "multiblock":
            masks = self.sampler.sample(self.seed, self.step, np.arange(count))
            self.step += 1
            return masks.context, masks.targets.flatten(1)
        keys = self.rng.random((count, n))
        if o["mask"] == "inverse":  # the context is a block, which may wrap around the border
            side = round(o["context"] ** 0.5)
            rows = (self.rng.integers(0, GRID, (count, 1)) + np.arange(side)) % GRID
            columns = (self.rng.integers(0, GRID, (count, 1)) + np.arange(side)) % GRID
            block = (rows[:, :, None] * GRID + columns[:, None]).reshape(count, -1)
            np.put_along_axis(keys, block, -1.0, axis=1)
            order = np.argsort(keys, axis=1)
            return torch.from_numpy(order[:, : side * side]), torch.from_numpy(
                order[:, side * side :][:, : o["targets"]]
            )
        if o["mask"] == "blocks":  # the context is random patches outside a few blocks; the targets are in the blocks
            keys = keys * 0.5
            low = self.rng.random((count, 4, 4))
            grid = np.repeat(np.repeat(low, 2, 1), 2, 2).reshape(count, n)
            keys = keys * 1e-3 + grid  # cells of 2x2 patches
        order = np.argsort(keys, axis=1)
        unseen = 0 if o["visible"] else o["context"]  # the context's own patches are targets, too
        return torch.from_numpy(order[:, : o["context"]]), torch.from_numpy(order[:, unseen:][:, : o["targets"]])


class RotaryAttention(nn.Module):
    """Self-attention with axial rotations of queries and keys by patch position."""

    cos: Tensor
    sin: Tensor
    positions: Tensor | None = None  # of the patches, in the pass that is computed; None: all

    def __init__(self, old: Any, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = old.qkv, old.proj, heads
        count = old.qkv.in_features // heads // 4
        frequencies = 10.0 ** (-torch.arange(count) / count) * (math.pi / 2)
        rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
        angle = torch.cat([rows.flatten()[:, None] * frequencies, columns.flatten()[:, None] * frequencies], 1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, x: Tensor, attn_mask: Any = None, **_: Any) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        at = RotaryAttention.positions
        cos, sin = (self.cos, self.sin) if at is None else (self.cos[at][:, None], self.sin[at][:, None])
        q, k = (torch.cat([a * cos - b * sin, a * sin + b * cos], -1) for a, b in (q.chunk(2, -1), k.chunk(2, -1)))
        found: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return found


def show_layers(title: str, encoder: Encoder, source: Any, spec: Any) -> None:
    """Prints k-NN and ridge accuracy of every block's average-pooled features."""
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)

    def features(part: Any, count: int) -> tuple[Tensor, Tensor]:
        every = max(1, len(part.images) // count)
        images = torch.from_numpy(np.ascontiguousarray(part.images[::every])).permute(0, 3, 1, 2)
        depths = list(range(len(encoder.blocks) + 1))
        with torch.no_grad():
            pooled = [hidden(encoder, (x.float() / 255 - mean) / std, depths)[0].mean(1) for x in images.split(500)]
        return torch.cat(pooled), torch.as_tensor(np.asarray(part.labels[CLASS])[::every])

    train_features, train_labels = features(source.train, 10_000)
    val_features, val_labels = features(source.val, 5_000)
    for level in range(train_features.shape[1]):
        known, asked = train_features[:, level], val_features[:, level]
        near = (F.normalize(asked, dim=-1) @ F.normalize(known, dim=-1).T).topk(20).indices
        knn = (F.one_hot(train_labels[near], 10).sum(1).argmax(1) == val_labels).float().mean()
        center, scale = known.mean(0), known.std(0) + 1e-6
        known, asked = (known - center) / scale, (asked - center) / scale
        gram = known.T @ known + 30 * torch.eye(known.shape[1])
        weights = torch.linalg.solve(gram, known.T @ (F.one_hot(train_labels, 10).float() - 0.1))
        ridge = ((asked @ weights).argmax(1) == val_labels).float().mean()
        print(f"{title}, block {level}: k-NN {100 * knn:.1f} ridge {100 * ridge:.1f}", flush=True)


def train(o: dict[str, Any], source: Any, budget: float, seed: int, shares: list[float], measure: Any) -> None:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = compose_config(*DATA["cifar10"], f"model.width={o['width']}", f"model.depth={o['depth']}",
                            f"model.heads={o['heads']}", "predictor.width=48")  # fmt: skip
    spec = encoder_spec(config.model, config.data)
    student: Encoder = replace(spec, init=o["init"]).build()  # type: ignore[assignment]
    if o["white"]:  # the patch embedding: a random rotation of whitened patches
        whiten_embedding(student, source, spec, o["white"], o["white_model"])
        if o["white_freeze"]:
            student.patch_embed.proj.requires_grad_(False)
    if o["rope"]:
        for block in student.blocks:
            block.attn = RotaryAttention(block.attn, o["heads"])
    teacher = copy.deepcopy(student).requires_grad_(False)
    if o["start"]:
        student.load_state_dict(torch.load(o["start"]))
        teacher.load_state_dict(student.state_dict())
    average = copy.deepcopy(student).requires_grad_(False)
    if o["teacher"]:  # frozen, trained by a run with save=FILE, whose FLOPs are not counted
        if o["teacher_width"]:
            teacher = replace(spec, width=o["teacher_width"]).build()  # type: ignore[assignment]
            teacher.requires_grad_(False)
        teacher.load_state_dict(torch.load(o["teacher"]))
    goal_width = o["teacher_width"] or o["width"]
    depths = [int(d) for d in str(o["depths"]).split("-")]
    latent = o["target"] == "latent"
    width, pixel_count = o["width"], 16 * 3
    outputs = (goal_width * (1 if o["avg"] else len(depths)) if latent else 0) + (
        pixel_count if o["pixels"] or o["switch"] or not latent else 0
    )
    count = o["clusters"]
    predictor = Predictor(width, o, outputs + count)
    clusters = Clusters(width, count)
    projector: nn.Module = nn.Identity()
    if o["proj"]:
        projector = nn.Sequential(nn.Linear(width, o["proj"]), nn.BatchNorm1d(o["proj"]), nn.ReLU(),
                                  nn.Linear(o["proj"], o["proj"]))  # fmt: skip
    own_head = nn.Linear(width, width * sum(d > 0 for d in depths))
    named = [(f"j.{n}", p) for n, p in projector.named_parameters()]
    named += [(f"o.{n}", p) for n, p in own_head.named_parameters() if o["own"]]
    named += [(f"c.{n}", p) for n, p in clusters.named_parameters() if count]
    named += [(f"s.{n}", p) for n, p in student.named_parameters()] + [
        (f"p.{n}", p) for n, p in predictor.named_parameters()
    ]
    muon = None
    if o["opt"] == "muon":
        matrices, *others = optim.groups(named, muon=True)
        rest = [item for group in others for item in group]
        muon = optim.Muon([p for _, p in matrices], lr=o["lr"], bf16=bool(o["bf16"]))
        muon.param_groups[0]["weight_decay"] = o["wd"]
        adam = optim.adamw(rest, o["lr"], (0.9, o["beta2"]), 1e-8, False)
    else:
        adam = optim.adamw(named, o["lr"], (0.9, o["beta2"]), 1e-8, False)
    for group in adam.param_groups[:1]:
        group["weight_decay"] = o["wd"]
    token_stats = [Statistics(o["stat"], o["stat_decay"], o["eps"]) for _ in (depths[:1] if o["avg"] else depths)]
    image_stats = Statistics(o["image_stat"], o["stat_decay"], o["eps"])
    masker = Masker(o, seed)
    amp = torch.autocast("cpu", torch.bfloat16, enabled=bool(o["bf16"]))
    for network in (student, teacher, predictor) if o["bf16"] else ():
        write_out_attention(network)
    c, k = (x.shape[1] for x in masker(2))
    c, k = (
        int(np.mean([masker(1)[0].shape[1] for _ in range(64)])),
        int(np.mean([masker(1)[1].shape[1] for _ in range(64)])),
    )
    p = o["pred_width"]
    embedding = student.embedding_flops(64)
    if o["cross"]:
        per = 0.0
        for seen in {0: (c,), 1: (1,), 2: (c, 1)}[o["bottle"]]:
            per += o["pred_depth"] * 2.0 * ((k + 1) * (2 * p * p + 8 * p * p + 2 * seen * p) + seen * 2 * p * p)
    else:
        per = transformer_flops(c + k + 1, p, o["pred_depth"], 4.0)
    per += 2.0 * p * (c * width + k * (outputs + count))
    trained = 2 * embedding + 3 * student.block_flops(c) + 3 * per
    trained += 6.0 * c * width * own_head.out_features if o["own"] else 0
    deepest = max(depths)
    whole = teacher.embedding_flops(64)
    whole += teacher.block_flops(c + k if o["partial"] else 64) * deepest / o["depth"]
    extra = 2.0 * 64 * width * width * (len(depths) + 1) if o["stat"] == "whiten" else 0
    extra += 4.0 * 64 * width * count
    needs_teacher = (latent and o["tokens"]) or o["image"]
    latents_from = o["switch"]  # as a share of the steps; only pixels are predicted before
    if o["sym"]:
        whole = 3 * (embedding + student.block_flops(64))
    if not o["tokens"] and not o["image"]:
        trained -= 3 * per
    image_flops = o["masks"] * trained + (1 - latents_from) * (whole + extra if needs_teacher else 0)
    if o["opt"] == "muon":
        image_flops += optim.orthogonalisation_flops(named) / o["batch"]
    steps = max(round(budget / image_flops / o["batch"]), 8)
    images = torch.from_numpy(np.ascontiguousarray(source.train.images)).permute(0, 3, 1, 2)
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)
    order = torch.empty(0, dtype=torch.long)
    warmup = max(1, round(o["warmup"] * steps))
    marks = {max(1, round(share * steps)): share for share in shares}
    running: Tensor | None = None
    seconds, resumed = 0.0, time.perf_counter()
    sums: dict[str, float] = {}
    for step in range(steps):
        if len(order) < o["batch"]:
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        chosen, order = order[: o["batch"]], order[o["batch"] :]
        x = (crops(images[chosen].float() / 255, o, generator) - mean) / std
        done = step / steps
        rate = o["lr"] * (
            (step + 1) / warmup
            if step < warmup
            else o["lr_end"] + (1 - o["lr_end"]) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        )
        for group in adam.param_groups + (muon.param_groups if muon else []):
            group["lr"] = rate
        parts: dict[str, Tensor] = {}
        m = o["masks"]
        found = [masker(len(x)) for _ in range(m)]
        context_i = torch.stack([f[0] for f in found], 1).flatten(0, 1)
        target_i = torch.stack([f[1] for f in found], 1).flatten(0, 1)
        xs = x.repeat_interleave(m, 0) if m > 1 else x
        goals = []
        with torch.set_grad_enabled(bool(o["sym"])):
            if needs_teacher and done >= latents_from:
                given = torch.cat([context_i, target_i], 1) if o["partial"] else None
                with amp:
                    levels, last = hidden(student if o["sym"] else teacher, x, depths, full=bool(o["sym"]), seen=given)
                levels = levels.float()
                if latent and o["tokens"]:
                    if o["inst"]:  # over the patches of an image
                        levels = levels - levels.mean(1, keepdim=True)
                        levels = (
                            levels / (levels.square().mean(1, keepdim=True) + 1e-5).sqrt() if o["inst"] > 1 else levels
                        )
                    if o["avg"]:
                        levels = levels.mean(2, keepdim=True)
                    levels = F.layer_norm(levels, levels.shape[-1:]) if o["layer_norm"] else levels
                    normal = (
                        [s(levels[:, :, i]) for i, s in enumerate(token_stats)]
                        if given is None
                        else [s.standardised_part(levels[:, :, i], given) for i, s in enumerate(token_stats)]
                    )
                    if o["token_norm"]:
                        normal = [F.layer_norm(x, x.shape[-1:]) for x in normal]
                    if o["own"]:  # the deeper targets of the context's own patches
                        deeper = torch.cat([n for n, d in zip(normal, depths, strict=True) if d], -1)
                        own_goal = deeper[:, :c] if o["partial"] else gather(deeper, context_i)
                    if o["partial"]:
                        normal = [n[:, c:] for n in normal]
                    whole_targets = torch.cat(normal, -1)
                    goals.append(whole_targets)
                deep = levels[:, :, -1].mean(1, keepdim=True)
                image_goal = image_stats(deep)[:, 0] if o["image"] else None
            if done < latents_from:
                goals.append(pixel_targets(x, 4))
            elif o["pixels"] or not latent:
                goals.append(pixel_targets(x, 4) * (o["pixels"] ** 0.5 if latent else 1))
            if goals:
                all_targets = torch.cat(goals, -1)
                all_targets = all_targets.repeat_interleave(m, 0) if m > 1 else all_targets
                token_goal = all_targets if o["partial"] else gather(all_targets, target_i)
        RotaryAttention.positions = context_i
        inner: Tensor = torch.empty(0)
        if o["reg"] == "depths":  # the context's tokens after each block that is a target, too
            wanted = [d for d in depths if 0 < d < o["depth"]]
            both = student(xs, context_i, depths=[*wanted, o["depth"]]).unflatten(-1, (-1, width))
            inner, context = F.layer_norm(both[:, :, :-1], (width,)), both[:, :, -1]
        else:
            with amp:
                context = student(xs, context_i)
            context = context.float()
        RotaryAttention.positions = None
        total = torch.zeros(())
        if o["tokens"] or o["image"]:
            none = torch.empty(0)
            if o["bottle"] != 1:
                with amp:
                    tokens, image = predictor(context, context_i, target_i)
                tokens, image = tokens.float(), image.float()
            if o["bottle"]:  # all targets from the average-pooled context alone
                narrow, image = predictor(context.mean(1, keepdim=True), none, target_i)
                parts["bottle"] = F.mse_loss(narrow, token_goal)
                tokens = narrow if o["bottle"] == 1 else tokens
        if count:
            logits, tokens = tokens[..., -count:], tokens[..., :-count]
        if o["switch"]:
            tokens = tokens[..., -pixel_count:] if done < latents_from else tokens[..., : token_goal.shape[-1]]
        if not o["tokens"]:
            pass
        elif o["loss"] == "l2":
            parts["tokens"] = F.mse_loss(tokens, token_goal)
        elif o["loss"] == "smooth":
            parts["tokens"] = F.smooth_l1_loss(tokens, token_goal)
        elif o["loss"] == "cos":
            parts["tokens"] = 2 - 2 * F.cosine_similarity(tokens, token_goal, dim=-1).mean()
        if o["tokens"]:
            total = o["tokens"] * parts["tokens"]
            if o["own"]:
                parts["own"] = F.mse_loss(own_head(context), own_goal)
                total = total + o["own"] * parts["own"]
            if o["bottle"] == 2:
                total = 0.5 * (total + parts["bottle"])
        if count:
            assigned, parts["prototypes"] = clusters(normal[-1])
            assigned = gather(assigned.repeat_interleave(m, 0), target_i)
            parts["clusters"] = -(assigned * F.log_softmax(logits, dim=-1)).sum(-1).mean()
            total = total + o["cluster_weight"] * (parts["clusters"] + parts["prototypes"])
        pooled = projector(context.mean(1))
        if o["view"]:
            views = pooled.unflatten(0, (len(x), m))
            parts["view"] = (views - views.mean(1, keepdim=True)).square().sum(1).mean() * 2 / (m - 1)
            total = total + o["view"] * parts["view"]
        if o["nce"]:  # the same position in other images, through random rows of the target lists
            q, g = F.normalize(tokens, dim=-1), F.normalize(all_targets, dim=-1)
            sims = (
                torch.einsum(
                    "bkd,cbkd->bkc", q, torch.stack([gather(g.roll(r * m, 0), target_i) for r in range(0, 16)])
                )
                / o["nce_tau"]
            )
            parts["nce"] = F.cross_entropy(
                sims.flatten(0, 1), torch.zeros(sims.shape[0] * sims.shape[1], dtype=torch.long)
            )
            total = total + o["nce"] * parts["nce"]
        if o["image"]:
            assert image_goal is not None
            goal = image_goal.repeat_interleave(m, 0)
            if o["tau"]:
                logits = F.normalize(image, dim=-1) @ F.normalize(image_goal, dim=-1).T / o["tau"]
                parts["image"] = F.cross_entropy(logits, torch.arange(len(x)).repeat_interleave(m))
            else:
                parts["image"] = F.mse_loss(image, goal)
            total = total + o["image"] * parts["image"]
        if o["pool_var"] or o["pool_cov"]:
            pc = within_group_covariance(pooled, torch.zeros(len(pooled), dtype=torch.long), 1)
            parts["pvar"], parts["pcov"] = variance_term(pc), covariance_term(pc)
            total = total + o["pool_var"] * parts["pvar"] + o["pool_cov"] * parts["pcov"]
        regs = o["reg_end"] + (1 - o["reg_end"]) * 0.5 * (1 + math.cos(math.pi * done))
        if o["var"] or o["cov"]:
            if o["sym"]:
                cov = within_group_covariance(last.flatten(0, 1), torch.arange(64).repeat(len(x)), 64)
            elif o["reg"] in ("tokens", "depths"):
                cov = within_group_covariance(context.flatten(0, 1), context_i.flatten(), 64)
            else:
                cov = within_group_covariance(pooled, torch.zeros(len(pooled), dtype=torch.long), 1)
            if o["reg_decay"]:  # gradient at the running covariance of the steps before: a sum over samples
                now = cov.detach()
                running = now if running is None else running
                point = running.clone().requires_grad_()
                value = o["var"] * variance_term(point) + o["cov"] * covariance_term(point)
                (slope,) = torch.autograd.grad(value, point)
                total = total + (slope * cov).sum()
                running = o["reg_decay"] * running + (1 - o["reg_decay"]) * now
                parts["var"], parts["cov"] = variance_term(now), covariance_term(now)
            else:
                parts["var"], parts["cov"] = variance_term(cov), covariance_term(cov)
                total = total + regs * (o["var"] * parts["var"] + o["cov"] * parts["cov"])
                for level in inner.unbind(2) if inner.numel() else ():
                    cov = within_group_covariance(level.flatten(0, 1), context_i.flatten(), 64)
                    total = total + o["var"] * variance_term(cov) + o["cov"] * covariance_term(cov)
        adam.zero_grad()
        if muon:
            muon.zero_grad()
        total.backward()
        if o["clip"]:
            nn.utils.clip_grad_norm_([q for _, q in named], o["clip"])
        adam.step()
        if muon:
            muon.step()
        momentum = o["ema0"] + (o["ema1"] - o["ema0"]) * done
        with torch.no_grad():
            if not o["teacher"]:
                torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
            if o["average"]:  # measured instead of the target encoder
                away = 1 - min(o["average"], (step + 1) / (step + 10))
                torch._foreach_lerp_(list(average.parameters()), list(student.parameters()), away)
        for name, value in parts.items():
            sums[name] = 0.98 * sums.get(name, value.item()) + 0.02 * value.item()
        if step + 1 in marks:
            seconds += time.perf_counter() - resumed
            print(" ".join(f"{name} {value:.4f}" for name, value in sums.items()), flush=True)
            network = copy.deepcopy(average if o["average"] else student if o["teacher"] else teacher)
            if o["save"]:
                torch.save(network.state_dict(), o["save"])
            if o["layers"]:
                show_layers("target", teacher, source, spec)
                show_layers("context", student, source, spec)
            done_images = (step + 1) * o["batch"]
            measure(marks[step + 1], done_images, done_images * image_flops, seconds, PretrainedEncoder(network, spec))
            resumed = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.prototype")
    parser.add_argument("data", choices=["cifar10"])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--budget", type=float, default=1e13)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.5, 1.0])
    parser.add_argument("--part", default="search")
    parser.add_argument("--csv", type=Path, default=Path("docs/learning/prototypes.csv"))
    v = parser.parse_args()
    o = dict(OPTIONS)
    for item in v.set:
        key, _, value = item.partition("=")
        if key not in o:
            raise UserError(f"--set {item}: there is no {key}; try {', '.join(o)}")
        o[key] = type(o[key])(float(value)) if isinstance(o[key], int) else type(o[key])(value)
    source = load(v.data, v.root, v.part)
    config = compose_config(*DATA["cifar10"], "task=[knn,logistic]")
    data = build.data(config.data, labelled(source, v.part), None, 1, config.hardware, 0)
    for seed in v.seeds:
        row = {"method": "pixels" if o["target"] == "pixels" else "prototype", "name": v.name, "data": v.data,
               "part": v.part, "budget": f"{v.budget:g}", "seed": str(seed),
               "command": shown_command("benchmarks.learning.prototype", sys.argv[1:])}  # fmt: skip
        if is_finished(v.csv, row):
            continue

        def measure(
            share: float, images: int, flops: float, seconds: float, encoder: PretrainedEncoder, row: Any = row
        ) -> None:
            context = EvalContext(data, Runtime(torch.device("cpu")), 0, quiet=True)
            results = tasks.evaluate(config.task, EvaluatedModel("target encoder", encoder.eval()), context).values
            found = {n: f"{100 * results[n]:.2f}" for n in ("knn20", "logistic")}
            append_row(v.csv, {**row, "share": f"{share:g}", "images": str(images), "flops": f"{flops:.4g}",
                               "seconds": f"{seconds:.0f}", **found})  # fmt: skip

        train(o, source, v.budget, seed, v.shares, measure)


if __name__ == "__main__":
    run(main)
