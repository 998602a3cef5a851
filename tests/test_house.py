"""How the code hangs together."""

import ast
import re

from helpers import ROOT

# From the ground up; a file imports only from floors below its own, or from its own package.
FLOORS = [
    ["util"],
    ["config", "masking", "run_folder"],
    ["models", "data"],
    ["distributed"],
    ["training"],
    ["health", "pictures", "loggers"],
    ["interop"],
    ["evaluation"],
    ["callbacks", "sweeps"],
    ["report", "run"],
    ["cli"],
    ["plugins", "data.statistics", "data.verify", "__main__", "api"],  # commands, plug-ins, library
]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files():
    for path in sorted((ROOT / "ijepa").rglob("*.py")):
        parts = path.relative_to(ROOT / "ijepa").with_suffix("").parts
        yield path, place(parts)


def place(parts):
    """The package or file directly in ijepa/ that a module belongs to, unless it has a floor of its own."""
    whole = ".".join(parts)
    return whole if any(whole in names for names in FLOORS) else parts[0]


def test_a_file_imports_only_from_the_floors_below():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for path, here in files():
        if here == "__init__":
            continue
        for module in imported(path):
            parts = module.split(".")
            there = place(parts[1:]) if parts[0] == "ijepa" and len(parts) > 1 else here
            if there in floor and there != here:
                assert floor[there] < floor[here], f"{path.name} imports {module}"


def test_models_are_plain_modules():
    for path, here in files():
        if here in ("models", "masking"):
            for module in imported(path):
                assert module.split(".")[0] not in ("lightning", "hydra", "omegaconf"), f"{path.name}: {module}"
                assert not module.startswith("torch.distributed"), f"{path.name}: {module}"


def test_the_machinery_of_a_run_knows_no_module():
    """Only ijepa.run.build wires I-JEPA: a second LightningModule passes through the same code."""
    for path, here in files():
        machinery = here in ("callbacks", "health", "distributed") or (
            here == "run" and path.stem in ("assembly", "finalize", "runs", "resume")
        )
        for module in imported(path) if machinery else ():
            assert not module.startswith(("ijepa.training.module", "ijepa.models.jepa")), f"{path.name}: {module}"


def test_files_fit_one_sitting():
    for path, _ in files():
        assert len(path.read_text().splitlines()) <= 300, f"{path.name} is too long"


def test_tests_mirror_the_package():
    """From a file one can guess its test; none is too long, and none imports another."""
    tests = ROOT / "tests"
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests)
        assert len(path.read_text().splitlines()) <= 400, f"{name} is too long"
        for module in imported(path):
            assert not module.split(".")[-1].startswith("test_"), f"{name} imports {module}; try helpers.py"
        if len(name.parts) > 1 and name.parts[0] != "chaos":  # hostile tries, of all packages
            assert (ROOT / "ijepa" / name.parts[0] / "__init__.py").exists(), f"{name}: no such package in ijepa/"


def test_files_that_the_documentation_names_exist():
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for name in re.findall(r"\b(?:tests|ijepa|benchmarks)/[\w/]+\.py\b", page.read_text()):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"
