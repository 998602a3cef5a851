"""`python -m ijepa.interop inspect FILE` and `python -m ijepa.interop convert IN OUT --to FORMAT`."""

import argparse
from pathlib import Path
from typing import cast

from ijepa.config.trust import trusting
from ijepa.interop import classifier_exports, loading, meta, programs, timm, transformers
from ijepa.interop.card import Card
from ijepa.interop.classifier_files import load_classifier
from ijepa.interop.dense import load_dense
from ijepa.interop.heads_file import CLASSIFIER, DENSE, kind_of
from ijepa.interop.weights import Weights, Which
from ijepa.models.encoder import Encoder
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.util import commands
from ijepa.util.errors import ConfigError

KEY = "file"
FORMATS = ("timm", "transformers", "meta", "onnx", "torch-export", "safetensors")
FOLDERS = ("transformers",)
PICKLE_SUFFIXES = (".pt", ".pth", ".bin")


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code."""

    def job(given: argparse.Namespace) -> None:
        with trusting(given.trust):
            given.run(given)

    return commands.run(_parser(), job, arguments)


def _parser() -> commands.Parser:
    command = commands.command_line("convert").removesuffix(" convert")
    parser = commands.Parser(command, description="Converts weights between formats: docs/weights.md.")
    subparsers = parser.add_subparsers(required=True, metavar="inspect|convert")
    heads_help = "number of attention heads, if the file does not store it and the width is not a published one"
    trust_help = "a package of yours whose classes the file may name; can be repeated"
    inspect = subparsers.add_parser("inspect", help="show what a file contains")
    inspect.add_argument("file", help="run folder, file, timm name or https:// URL")
    inspect.add_argument("--heads", type=int, help=heads_help)
    inspect.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust_help)
    inspect.set_defaults(run=_inspect)
    convert = subparsers.add_parser("convert", help="convert it to another format, with a model card")
    convert.add_argument("file", metavar="IN", help="run folder, file, timm name or https:// URL")
    convert.add_argument("out", metavar="OUT", type=_path, help="a file; for transformers a folder")
    convert.add_argument("--to", choices=FORMATS, required=True)
    convert.add_argument("--encoder", choices=("target", "context"), default="target", help="default: target")
    convert.add_argument("--heads", type=int, help=heads_help)
    convert.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust_help)
    convert.add_argument("--overwrite", action="store_true", help="replace OUT")
    convert.set_defaults(run=_convert)
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _read(given: argparse.Namespace, encoder: Which, whole: bool) -> tuple[Path, Weights]:
    file = loading.select_file(loading.resolve_source(given.file, KEY), encoder, whole, KEY)
    return file, loading.read_weights(file, given.heads, KEY)


def _inspect(given: argparse.Namespace) -> None:
    file, weights = _read(given, "target", whole=True)
    spec = weights.spec
    rows, columns = spec.grid
    height, width = spec.image_size
    encoders = [f"{which} encoder" if which else "an encoder" for which in weights.encoders]
    print(f"{file}: {weights.form}")
    for name, value in weights.facts.items():
        print(f"  {name:<12} {value}")
    if kind_of(file) == CLASSIFIER:
        for name, labels in load_classifier(file).classes.items():
            print(f"  {'classifier':<12} {name}: {len(labels)} classes")
    if kind_of(file) == DENSE:
        predictor = load_dense(file)
        classes = predictor.head.out_features
        described = f", {classes} classes" if predictor.description.kind == "segmentation" else ""
        print(f"  {'head':<12} {predictor.description.kind}{described}")
    print(f"  {'holds':<12} {', '.join([*encoders, *(['predictor'] if weights.predictor else [])])}")
    print(f"  {'images':<12} {height}x{width} pixels, {spec.channels} channels; {rows}x{columns} patches of "
          f"{spec.patch_size}x{spec.patch_size}")  # fmt: skip
    mlp = f"MLP {spec.mlp_ratio:.4g}x, " if spec.kind == "vit" else ""
    if spec.kind != "vit":
        print(f"  {'network':<12} {'timm' if spec.kind == 'timm' else 'class'} {spec.name}")
    print(f"  {'encoder':<12} width {spec.width}, {spec.depth} blocks, {spec.heads} heads, {mlp}"
          f"{_parameter_count(weights) / 1e6:.1f} M parameters")  # fmt: skip
    if weights.predictor is not None:
        sizes = weights.predictor_sizes
        parameters = sum(tensor.numel() for tensor in weights.predictor.values())
        print(f"  {'predictor':<12} width {sizes.width}, {sizes.depth} blocks, {parameters / 1e6:.1f} M parameters; "
              f"output of width {sizes.output_width}")  # fmt: skip
    if spec.registers:
        print(f"  {'registers':<12} {spec.registers}")
    if spec.kind == "vit":
        grid = "x".join(map(str, spec.position_grid or spec.grid))
        mapped = f", mapped onto {grid} patches" if spec.positions == "scaled" else ""
        print(f"  {'positions':<12} sin-cos, {spec.positions}{mapped}")
    print(f"  {'mean, std':<12} {_comma_separated(spec.mean)}; {_comma_separated(spec.std)}")
    for note in weights.notes:
        print(f"  note: {note}")


def _convert(given: argparse.Namespace) -> None:
    out: Path = given.out
    _validate_out(given)
    missing_package = programs.missing_package(given.to)
    if missing_package:
        raise ConfigError(
            "--to", given.to, f"needs {missing_package}, which is not installed; try pip install {missing_package}"
        )
    file, weights = _read(given, given.encoder, whole=given.to == "meta")
    notes = list(weights.notes)
    classifier = None
    if given.to == "meta":
        missing = [name for name in ("target", "context") if weights.encoder(name) is None]  # type: ignore[arg-type]
        missing += [] if weights.predictor is not None else ["predictor"]
        if missing:
            problem = f"has no {' and no '.join(missing)}, but the format needs all three"
            problem += "; give the run's folder or checkpoint"
            raise ConfigError(KEY, file, problem)
        try:
            meta.write(out, weights.networks(), weights.spec)
        except ValueError as fault:
            raise ConfigError("--to", given.to, str(fault)) from None
        written = [out]
    elif given.to in classifier_exports.FORMATS and kind_of(file) == CLASSIFIER:
        classifier = load_classifier(file)
        written, write_notes = classifier_exports.write(given.to, out, classifier)
        notes += write_notes
    else:
        encoder = loading.build_encoder(weights, file, given.encoder, weights.spec.positions, KEY)
        written, write_notes = _write(given.to, out, encoder, given.encoder)
        notes += write_notes
    if kind_of(file) == DENSE:
        notes.append("the head for depth or segmentation is not included; ijepa.load_dense reads it")
    if given.to == "timm" and out.suffix in PICKLE_SUFFIXES:
        notes.append("a bare state dict cannot store mean, std and heads; try .safetensors")
    which = classifier.which if classifier else None if given.to == "meta" else given.encoder
    source = file.parent.name if file.name == transformers.WEIGHTS else file.name
    card = Card(
        given.to, out.resolve().name, weights.spec, which, _parameter_count(weights), source, weights.form,
        tuple(notes), None if classifier is None else classifier.description,
    )  # fmt: skip
    folder = out if given.to in FOLDERS else out.parent
    for path in [*written, card.write(folder)]:
        print(f"written  {path}")
    for note in notes:
        print(f"note: {note}")


def _write(to: str, out: Path, encoder: PretrainedEncoder, which: Which) -> tuple[list[Path], list[str]]:
    """Writes ``encoder`` in format ``to``; returns the written paths, and notes for the user."""
    spec, network = encoder.spec, encoder.encoder
    if spec.kind == "custom" and to != "safetensors":
        raise ConfigError("--to", to, f"cannot hold {spec.name}, a class of your own; try --to safetensors")
    if to == "transformers":
        if spec.kind == "timm":
            raise ConfigError("--to", to, f"IJepaModel cannot hold timm's {spec.name}; try --to timm")
        if spec.registers:
            problem = f"IJepaModel has no register tokens, and this encoder has {spec.registers}; try --to timm"
            raise ConfigError("--to", to, problem)
        reason = transformers.write(out, cast(Encoder, network), spec, which)
        names = [transformers.CONFIG, transformers.WEIGHTS, *([] if reason else [transformers.PROCESSOR])]
        return [out / name for name in names], [reason] if reason else []
    if to in ("timm", "safetensors"):
        timm.write(out, network, spec, which)
        return [out], []
    try:
        write = programs.write_onnx if to == "onnx" else programs.write_program
        return write(out, programs.Exportable.of(encoder)), []
    except programs.ProgramError as fault:
        raise ConfigError("--to", to, str(fault)) from None


def _validate_out(given: argparse.Namespace) -> None:
    """Raises ConfigError if OUT has the wrong suffix or kind, or exists."""
    out, to = given.out, given.to
    if to == "safetensors" and out.suffix != ".safetensors":
        raise ConfigError("OUT", out, "should end in .safetensors")
    if to == "timm" and out.suffix not in (".safetensors", *PICKLE_SUFFIXES):
        raise ConfigError("OUT", out, f"should end in .safetensors, or in {', '.join(PICKLE_SUFFIXES)}")
    if to in FOLDERS and out.is_file():
        raise ConfigError("OUT", out, "is a file; transformers needs a folder")
    if to not in FOLDERS and out.is_dir():
        raise ConfigError("OUT", out, f"is a folder; give a file in it, e.g. {commands.typed(out / 'encoder')}")
    data_file = out.with_name(out.name + ".data")
    if to == "onnx" and data_file.exists() and not given.overwrite:
        raise ConfigError(
            "OUT", out, f"{data_file.name} exists in the same folder; add --overwrite, or give another path"
        )
    exists = out.exists() and (to not in FOLDERS or any(out.iterdir()))
    if exists and not given.overwrite:
        raise ConfigError("OUT", out, "exists; add --overwrite, or give another path")


def _parameter_count(weights: Weights) -> int:
    return sum(tensor.numel() for tensor in next(iter(weights.encoders.values())).values())


def _comma_separated(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
