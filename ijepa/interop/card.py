"""The model card of an export: README.md with the metadata that model hubs read."""

from dataclasses import dataclass
from pathlib import Path

from ijepa.interop.classifier import Description
from ijepa.interop.timm import constructor_arguments
from ijepa.interop.transformers import PROCESSOR_MODES
from ijepa.models.pretrained import Spec
from ijepa.util.files import write_text

MARKER = "<!-- written by python -m ijepa.interop convert: "
"""Start of a card's first line after the metadata; a README.md without it was written by the user."""
LIBRARIES = {
    "timm": "timm", "transformers": "transformers", "onnx": "onnx", "torch-export": "pytorch", "meta": "pytorch",
    "safetensors": "pytorch",
}  # fmt: skip


YIELDS_FEATURES = """it yields a feature vector
for each patch of an image. The paper averages those of the target encoder for classification."""
CLASSIFIES = """with a
classifier that was trained on its features."""
SHOWN_CLASSES = 20
"""Classes that a card names, at most."""


@dataclass(frozen=True)
class Card:
    """The contents of a model card.

    Attributes:
        to: the export's format.
        name: file or folder name of the export.
        spec: description of the encoder.
        which: ``target`` or ``context`` encoder; None: all three networks.
        parameters: number of parameters of the encoder.
        source: name of the file that was converted.
        form: format of that file.
        notes: further notes for the user, one line each.
        classifier: description of the classifier that was exported with the encoder, if any.
    """

    to: str
    name: str
    spec: Spec
    which: str | None
    parameters: int
    source: str
    form: str
    notes: tuple[str, ...] = ()
    classifier: Description | None = None

    def text(self) -> str:
        """Markdown, preceded by metadata."""
        spec = self.spec
        height, width = spec.image_size
        contents = f"the {self.which} encoder" if self.which else "context encoder, predictor and target encoder"
        inside_note = ", applied inside" if self.to not in ("timm", "transformers") else ""
        rows = {
            "network": f"{_network(spec)}; {self.parameters / 1e6:.1f} M parameters",
            "holds": contents,
            "images": f"{height}x{width} pixels, {spec.channels} channels; {spec.grid[0]}x{spec.grid[1]} patches of "
            f"{spec.patch_size}x{spec.patch_size}",
            "mean" + inside_note: ", ".join(f"{value:g}" for value in spec.mean),
            "standard deviation" + inside_note: ", ".join(f"{value:g}" for value in spec.std),
            "made of": f"{self.source}, {self.form}",
            **_figures(self.classifier),
        }
        table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())
        notes = "".join(f"\n- {note}" for note in self.notes)
        purpose = CLASSIFIES if self.classifier else YIELDS_FEATURES
        return f"""---
library_name: {LIBRARIES[self.to]}
pipeline_tag: {"image-classification" if self.classifier else "image-feature-extraction"}
tags:
- i-jepa
- self-supervised-learning
- vision-transformer
---
{MARKER}{self.name} -->

# {Path(self.name).stem}

An encoder pretrained with I-JEPA (Assran et al., *Self-Supervised Learning from Images with a Joint-Embedding
Predictive Architecture*, CVPR 2023, [arXiv 2301.08243](https://arxiv.org/abs/2301.08243)): {purpose}

| | |
|---|---|
{table}

```python
{self._usage()}
```
{notes}
- The licence is that of the weights that this file was made from; state it here.
"""

    def _usage(self) -> str:
        if self.classifier:
            return self._classifier_usage(self.classifier)
        spec = self.spec
        shape = f"[B, {spec.channels}, {spec.image_size[0]}, {spec.image_size[1]}]"
        features = f"[B, {spec.grid[0] * spec.grid[1]}, {spec.width}]"
        if self.to == "timm":
            kwargs = ",\n    ".join(f"{name}={value!r}" for name, value in constructor_arguments(spec).items())
            load = "load_file" if Path(self.name).suffix == ".safetensors" else "torch.load"
            if spec.kind == "timm":
                return (
                    f"import timm\nfrom safetensors.torch import load_file\n\nmodel = timm.create_model(\n"
                    f"    {spec.name!r},\n    {kwargs},\n)\n"
                    f'model.load_state_dict({load}("{self.name}"), strict=False)  # a pooling head is left out\n'
                    f"model.eval()\nfeatures = model.fc_norm(model.forward_features(images))  # of normalised images "
                    f"{shape}\nfeatures = features[:, model.num_prefix_tokens :]  # {features}"
                )
            registers = f"[:, {spec.registers}:]" if spec.registers else ""
            imported = "from safetensors.torch import load_file\n" if load == "load_file" else "import torch\n"
            return (
                f"{imported}from timm.models import VisionTransformer\n\nmodel = VisionTransformer(\n    {kwargs},\n)\n"
                f'model.load_state_dict({load}("{self.name}"))\nmodel.eval()\n'
                f"features = model.forward_features(images){registers}  # {features}, of normalised images {shape}\n"
                "pooled = model(images)  # their average"
            )
        if self.to == "transformers":
            load = f'model = IJepaModel.from_pretrained("{self.name}").eval()\n'
            if spec.channels not in PROCESSOR_MODES:
                return (
                    f"from transformers import IJepaModel\n\n{load}"
                    f"features = model(images).last_hidden_state  # {features}, of normalised images {shape}"
                )
            return (
                f"from transformers import AutoImageProcessor, IJepaModel\n\n{load}"
                f'processor = AutoImageProcessor.from_pretrained("{self.name}")\n'
                'images = processor(image, return_tensors="pt")["pixel_values"]  # resized, normalised\n'
                f"features = model(images).last_hidden_state  # {features}"
            )
        if self.to == "onnx":
            return (
                f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{self.name}")\n'
                f'features, = session.run(["features"], {{"images": images}})  # {features}, of images {shape} in 0..1'
            )
        if self.to == "torch-export":
            return (
                f'import torch\n\nencoder = torch.export.load("{self.name}").module()\n'
                f"features = encoder(images)  # {features}, of images {shape} in 0..1"
            )
        return (
            f'import ijepa\n\nencoder = ijepa.load_encoder("{self.name}")\n'
            f"features = encoder(encoder.transform(image)[None])  # {features}, of any image"
        )

    def _classifier_usage(self, classifier: Description) -> str:
        """Code that computes the classes' probabilities."""
        several = len(classifier.label_sets) > 1
        result = ", ".join(f"{name}_probabilities" for name in classifier.label_sets) if several else "probabilities,"
        images = f"images [B, {self.spec.channels}, {classifier.size[0]}, {classifier.size[1]}]"
        if self.to == "onnx":
            return (
                "import json\n\nimport onnxruntime\n\n"
                f'session = onnxruntime.InferenceSession("{self.name}")\n'
                f'{result} = session.run(None, {{"images": images}})  # of {images} in 0..1\n'
                'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])'
            )
        if self.to == "torch-export":
            return (
                f'import torch\n\nclassifier = torch.export.load("{self.name}").module()\n'
                f"{result.rstrip(',')} = classifier(images)  # of {images} in 0..1"
            )
        (labels,) = classifier.label_sets.values()
        if self.to == "timm":
            arguments = {**constructor_arguments(self.spec), "num_classes": len(labels.classes)}
            kwargs = ",\n    ".join(f"{name}={value!r}" for name, value in arguments.items())
            load = "load_file" if Path(self.name).suffix == ".safetensors" else "torch.load"
            imported = "from safetensors.torch import load_file\n" if load == "load_file" else "import torch\n"
            return (
                f"{imported}from timm.models import VisionTransformer\n\n"
                f'model = VisionTransformer(\n    {kwargs},\n)\nmodel.load_state_dict({load}("{self.name}"))\n'
                f"model.eval()\nprobabilities = model(images).softmax(dim=1)  # of normalised {images}\n"
                f"classes = {labels.classes!r}"
            )
        prepared = (
            f'processor = AutoImageProcessor.from_pretrained("{self.name}")\n'
            'images = processor(image, return_tensors="pt")["pixel_values"]\n'
            if self.spec.channels in PROCESSOR_MODES
            else ""
        )
        imported = "AutoImageProcessor, " if prepared else ""
        return (
            f"from transformers import {imported}IJepaForImageClassification\n\n"
            f'model = IJepaForImageClassification.from_pretrained("{self.name}").eval()\n{prepared}'
            f"probabilities = model(images).logits.softmax(dim=1)  # of normalised {images}\n"
            "classes = model.config.id2label"
        )

    def write(self, folder: Path) -> Path:
        """Writes README.md into ``folder``, or ``NAME.md`` if there is a README.md of other origin."""
        path = folder / "README.md"
        try:
            is_users = path.is_dir() or (
                path.exists() and f"{MARKER}{self.name} -->" not in path.read_text(encoding="utf-8")
            )
        except UnicodeDecodeError:
            is_users = True
        if is_users:
            path = folder / f"{self.name}.md"
        write_text(path, self.text().encode(errors="replace").decode())
        return path


def _cell(text: str) -> str:
    """A table's cell, whatever names of classes hold."""
    return " ".join(text.replace("|", "\\|").encode(errors="replace").decode().split())


def _figures(classifier: Description | None) -> dict[str, str]:
    """Rows about a classifier: classes, how it was trained, and what was measured on validation images."""
    if classifier is None:
        return {}
    rows = {"classifier": f"`task={classifier.facts.get('task')}`"}
    for name, labels in classifier.label_sets.items():
        shown = ", ".join(labels.classes[:SHOWN_CLASSES]) + (", ..." if len(labels.classes) > SHOWN_CLASSES else "")
        rows[name] = f"{len(labels.classes)} classes: {shown}"
        found = classifier.facts.get("validation", {}).get(name)
        if isinstance(found, dict) and {"accuracy", "images"} <= found.keys():
            error = found.get("ece_calibrated")
            calibrated = "not calibrated" if error is None else f"calibration error {100 * error:.1f} %"
            rows[f"{name}, accuracy"] = (
                f"{100 * found['accuracy']:.1f} % of {found['images']} validation images; {calibrated}"
            )
    return rows


def _network(spec: Spec) -> str:
    sizes = f"of width {spec.width}, {spec.depth} blocks"
    if spec.kind != "vit":
        return f"{'timm' if spec.kind == 'timm' else 'class'} {spec.name} {sizes}"
    registers = f", {spec.registers} register tokens" if spec.registers else ""
    return f"ViT {sizes}, {spec.heads} heads, no class token{registers}"
