"""A run's folder from elsewhere is data: it neither runs code nor shows the environment."""

import json
import shutil

import pytest
import torch
from helpers import train_config
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import save_file
from weight_files import convert, saved, spec_of

import ijepa
from ijepa.config.trust import check_target, targets, trusting, typed_trust
from ijepa.run import followups
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import from_text, read_config, to_text
from ijepa.util.errors import UserError

pytestmark = pytest.mark.integration


@pytest.fixture
def foreign(finished, tmp_path):
    """A copy of a run, and a function that changes its configuration; a called class leaves a file."""
    folder = tmp_path / "foreign"
    shutil.copytree(finished[0], folder)

    def change(**changes):
        file = RunFolder(folder).config
        values = OmegaConf.create(file.read_text())
        for key, value in changes.items():
            OmegaConf.update(values, key.replace("__", "."), value, merge=False)
        file.write_text(OmegaConf.to_yaml(values))
        return folder

    return change


@pytest.fixture
def attack(tmp_path):
    """A section that would run a command, with a function that is imported already; what it would leave."""
    mark = tmp_path / "ran"
    return {"_target_": "os.system", "command": f"touch {mark}"}, mark


@pytest.mark.parametrize("key", ["masking", "objective.terms", "model", "callback", "logger", "data"])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_no_code_that_a_configuration_names_runs(foreign, attack, invoke, key, command):
    section, mark = attack
    if key in ("objective.terms", "callback", "logger"):
        section = {"x": section}
    name = "data.source" if key == "data" else key
    folder = foreign(**{name.replace(".", "__"): "os.system" if key == "data" else section})
    if command == "train":
        code, _, error = invoke("train.py", f"resume={folder}", "schedule.max_steps=9", "force=true")
    else:
        code, _, error = invoke("evaluate.py", f"checkpoint={folder}", "task=[knn,pictures]", "baselines=false")
    assert not mark.exists()
    if command == "evaluate" and key != "data":
        assert code == (0 if key != "masking" else 2), error  # it does not need the others
    if code:
        assert code == 2
        where = {"data": "data.source", "objective.terms": "objective.terms.x._target_", "masking": "masking._target_",
                 "model": "model._target_"}.get(key, f"{key}.x._target_")  # fmt: skip
        assert error.startswith(f"error: {where}=os.system: ")
        assert error.endswith("add trust=os\n")
        assert error.count("\n") == 1


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported."""
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "ran"


@pytest.mark.parametrize("to", ["transformers", "meta"])
def test_weights_of_other_formats_name_no_code(tmp_path, module, to):
    out = tmp_path / ("hf" if to == "transformers" else "m.pth.tar")
    file, _ = saved(spec_of("square"), tmp_path)
    convert(file, out, "--to", to)
    changed = {"kind": "custom", "name": "evil_module.Evil"}
    if to == "transformers":
        config = json.loads((out / "config.json").read_text())
        config["ijepa_encoder"] |= changed
        (out / "config.json").write_text(json.dumps(config))
    else:
        contents = torch.load(out, weights_only=True)
        contents["ijepa_encoder"] |= changed
        torch.save(contents, out)
    with pytest.raises(UserError, match="custom encoder, which this format does not hold"):
        ijepa.load_encoder(out)
    assert not module.exists()


def test_a_configuration_does_not_choose_what_hydra_reads(foreign, invoke, tmp_path, module):
    (tmp_path / "leak.yaml").write_text("# @package _global_\nmetric: ${oc.env:HOME}\n")
    search = ["pkg://evil_module", f"file://{tmp_path}"]
    folder = foreign(hydra={"searchpath": search}, defaults=["leak", "_self_"])
    code, _, error = invoke("train.py", f"resume={folder}", "schedule.max_steps=9", "force=true", "seed=-1")
    assert code == 2
    assert "seed=-1" in error
    assert not module.exists()


def test_a_section_beside_one_that_is_typed_is_not_trusted(foreign, invoke, module):
    folder = foreign(objective__terms={"evil": {"_target_": "evil_module.Evil"}})
    typed = "++objective.terms={mine: {_target_: torch.nn.Identity}}"
    code, _, error = invoke("train.py", f"resume={folder}", "schedule.max_steps=9", "force=true", typed)
    assert code == 2
    assert error.startswith("error: objective.terms.evil._target_=evil_module.Evil: ")
    assert not module.exists()


def test_an_old_configuration_refers_to_nothing_either(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "hunter2")
    file = tmp_path / "config.yaml"
    file.write_text("# Version: 2\ndata: {root: x}\nseed: 0\nlogger: {name: wandb, mode: '${oc.env:MY_SECRET}'}\n")
    found = OmegaConf.to_container(read_config(file), resolve=True)
    assert found["logger"]["wandb"]["mode"] == "${oc.env:MY_SECRET}"


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_references_in_a_configuration_are_text(foreign, invoke, command, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "hunter2")
    reference = "${oc.env:MY_SECRET}"
    folder = foreign(
        data__root=reference, logger={"wandb": {**OmegaConf.load("conf/logger/wandb.yaml").get("wandb", {})}}
    )
    arguments = {"train": ("train.py", f"resume={folder}", "schedule.max_steps=9", "force=true"),
                 "evaluate": ("evaluate.py", f"checkpoint={folder}", "task=knn", "data.source=folder")}  # fmt: skip
    code, output, error = invoke(*arguments[command])
    assert code == 2
    assert "hunter2" not in output + error
    assert "${oc.env:MY_SECRET}" in error


def test_a_path_with_a_dollar_sign_is_written_and_read(tmp_path):
    values = {"data": {"root": "/a/x${y}"}, "run_dir": "\\\\${z}", "resume": "a\\${z}", "seed": 0}
    file = tmp_path / "config.yaml"
    file.write_text(to_text(values))
    assert OmegaConf.to_container(read_config(file), resolve=True) == values
    assert from_text("data: {root: '${seed}'}\nseed: 3\n", file).data.root == "${seed}"


def test_classifiers_name_no_code_either(finished, invoke, tmp_path):
    out = tmp_path / "evaluation"
    code, _, error = invoke("evaluate.py", f"checkpoint={finished[0]}", "task=logistic", f"output={out}")
    assert code == 0, error
    (file,) = out.glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        metadata = dict(opened.metadata())
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    spec = {**json.loads(metadata["ijepa_encoder"]), "kind": "custom", "name": "torch.nn.Identity"}
    save_file(state, file, {**metadata, "ijepa_encoder": json.dumps(spec)})
    with pytest.raises(UserError, match=r"model._target_=torch.nn.Identity: .*; if you know the file, add trust=torch"):
        ijepa.load_classifier(file)
    code, _, error = invoke("predict.py", f"checkpoint={file}", f"data.root={tmp_path}")
    assert code == 2


def test_packages_modules_and_classes_can_be_trusted(tmp_path):
    for package in ("mine", "mine.part", "mine.part.Class", ["other", "mine"]):
        with trusting(package):
            check_target("model._target_", "mine.part.Class", tmp_path)
    for package in ("min", "mine.par", "mine.part.Cla", "part", []):
        with trusting(package), pytest.raises(UserError, match="add trust=mine"):
            check_target("model._target_", "mine.part.Class", tmp_path)
    found = targets({"data": {"source": "a.b"}, "x": {"y": {"_target_": "c.D"}}, "masking": {"name": "random"}})
    assert found == {"data.source": "a.b", "x.y._target_": "c.D"}
    assert torch.nn.Identity is not None


def test_printed_commands_allow_the_run_s_own_packages():
    mine, other = ("{_target_: mine.Term}", "{_target_: other.part.Term}")
    for terms, typed in (("{}", ""), (f"{{a: {mine}}}", " trust=mine"),
                         (f"{{a: {mine}, b: {other}}}", " 'trust=[mine,other]'")):  # fmt: skip
        config = train_config(f"++objective.terms={terms}")
        assert typed_trust(config) == typed
        assert followups.resume("FOLDER", config) == f"python train.py resume=FOLDER{typed}"
        assert followups.evaluate("FOLDER", config) == f"python evaluate.py checkpoint=FOLDER{typed}"


@pytest.mark.parametrize(("target", "shown"), [("mine.A", "trust=mine"), ("a; rm -rf ~.B", "'trust=a; rm -rf ~'")])
def test_the_package_to_trust_can_be_pasted(tmp_path, target, shown):
    with pytest.raises(UserError) as caught:
        check_target("model._target_", target, tmp_path)
    assert str(caught.value).endswith(f"; if you know the file, add {shown}")
