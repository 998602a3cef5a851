"""Folders of runs made up for the report, and what stands on its page."""

import html
import io
import json
import re

import yaml
from PIL import Image

from ijepa.report.command import main

EVIL = "</script><script>fail('x')</script><!-- \u2028 \"'&"


CONFIG = {
    "defaults": ["_self_"], "run_dir": "somewhere", "resume": None, "seed": 0, "model": {"width": 24, "depth": 2},
    "data": {"source": "folder", "root": "/images", "image_size": [16, 24], "batch_size": 8},
    "schedule": {"epochs": 2.0, "max_steps": 40}, "optimizer": {"lr": 0.001}, "task": {"knn": {"headline": 20}},
}  # fmt: skip


HEALTH = (
    "rankme",
    "lidar",
    "std",
    "predictions_std",
    "cosine",
    "gradient_norm",
    "encoder_distance",
    "knn",
    "unheard_of",
)


def png(width=8, height=6, shade=120):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 80, 160)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())


def metrics(steps=40, label_set=None):
    names = ["step", "images", "epoch", "flops", "seconds", "train/loss", "lr"]
    prefix = f"{label_set}/" if label_set else ""
    names += [f"val/{prefix}knn20", f"val/{prefix}logistic_l2", *(f"health/{prefix}{name}" for name in HEALTH)]
    names.append("health/verdict")
    quoted = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    lines = [quoted]
    for step in range(1, steps + 1):
        row = [str(step), str(step * 8), f"{step / 20}", f"{step * 1e9:g}", f"{step / 10}", f"{2 / step:.4f}", "1e-3"]
        row += ["0.5", "1e-06"] if step % 20 == 0 else ["", ""]
        row += ["nan" if step == 20 else f"{step / 7:.3f}"] * len(HEALTH) if step % 10 == 0 else [""] * len(HEALTH)
        row.append("collapsing (complete)" if step % 10 == 0 else "")
        lines.append(",".join(row))
    return "\n".join(lines) + "\n"


def make(folder, steps=40, total=40, verdict="healthy", evil="", **config):
    """A run's folder as train.py and evaluate.py leave it; ``evil`` in everything that has a name."""
    changed = {**CONFIG, **config, "run_dir": str(folder)}
    write(folder / "config.yaml", yaml.safe_dump(changed))
    write(folder / "metrics.csv", metrics(steps, evil or None))
    found = {f"{evil}/knn20" if evil else "knn20": 0.5, "depth_rmse": 0.31, "logistic_l2": 1e-6}
    rows = {"target encoder": found, "random init": dict.fromkeys(found, 0.4), "raw pixels": {}}
    if steps == total:
        write(folder / "summary.json", json.dumps({"steps": steps, "loss": 0.05, "results": rows, "unreadable": []}))
    intervals = {"target encoder": {name: [0.41, 0.62] for name in found}}
    written = {"config": {}, "images": {"train": 90, "val": 1234}, "results": rows, "intervals": intervals}
    write(folder / "evaluation" / "knn" / "metrics.json", json.dumps(written))
    write(folder / "evaluation" / "knn" / "neighbours.png", png(shade=40))
    verdicts = [
        {"step": 10, "verdict": "warming up", "kind": None, "evidence": ["early"], "remedies": []},
        {"step": 40, "verdict": verdict, "kind": evil or None, "evidence": [f"rank 12 {evil}"],
         "remedies": [f"lr {evil}"]},
    ]  # fmt: skip
    write(folder / "health.json", json.dumps({"verdicts": verdicts}))
    write(folder / "pictures" / "masks.png", png())
    for step in (10, 20, 40):
        write(folder / "pictures" / "predictions" / f"step-{step:06}.png", png(shade=step))
    return folder


def report(*arguments):
    out = arguments[-1]
    assert main([*map(str, arguments[:-1]), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def shown(source):
    """The text of a page, without styles and scripts."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", source, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", bare)).split())


def drawn(source):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', source, re.DOTALL)[1])
