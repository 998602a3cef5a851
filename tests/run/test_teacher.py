"""A frozen encoder that gives the targets: objective.teacher."""

import json
import shutil

import pytest
import torch
from helpers import EXACT, TINY, assert_same, train_config

import ijepa
from ijepa.interop import timm
from ijepa.masking import Masks
from ijepa.models.targets import TargetStatistics
from ijepa.models.teacher import Teacher
from ijepa.run import build
from ijepa.run_folder import RunFolder
from ijepa.training.module import Pretraining

RUN = ("data=digits", *TINY)
STUDENT = (*RUN, "model.width=36", "objective.target_depths=[0,2]", "objective.standardize_targets=true",
           "schedule.max_steps=4")  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a run with an encoder of width 24."""
    from helpers import fit

    folder = tmp_path_factory.mktemp("teacher") / "run"
    fit(folder, *RUN, "objective.target=pixels")
    return folder


def module_of(*overrides):
    torch.manual_seed(0)
    return build.pretraining(train_config(*overrides), 100, Pretraining)[0]


def masks_of(images):
    return Masks(torch.tensor([[0, 1]] * images), torch.tensor([[[2, 3]]] * images), None)


def test_targets_are_the_teacher_s_features(teacher):
    module = module_of(*STUDENT, f"objective.teacher={teacher}", "objective.standardize_targets=false")
    images = torch.rand(3, *module.image_flops.encoder.image)
    found = module.jepa(module.normalised(images), masks_of(3))
    frozen = ijepa.load_encoder(teacher)
    wanted = frozen.encoder((images - frozen.mean) / frozen.std, depths=[0, 2])
    wanted = torch.nn.functional.layer_norm(wanted.unflatten(-1, (2, 24)), (24,)).flatten(-2)
    torch.testing.assert_close(found.targets[:, 0], wanted[:, 2:4], rtol=0, atol=1e-5)
    assert found.predictions.shape == found.targets.shape == (3, 1, 2, 48)
    assert not found.targets.requires_grad


def test_images_are_normalised_as_the_teacher_knows_them(teacher):
    plain = module_of(*STUDENT, f"objective.teacher={teacher}")
    other = module_of(*STUDENT, f"objective.teacher={teacher}", "data.mean=[0.3]", "data.std=[2.5]")
    images = torch.rand(2, *plain.image_flops.encoder.image)
    first, second = (module.jepa.teacher(module.normalised(images)) for module in (plain, other))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_the_rest_of_the_run_draws_the_same_numbers(teacher):
    """An unread random state would change weights and masks of the seed."""
    with_teacher, without = (module_of(*RUN, *more) for more in ([f"objective.teacher={teacher}"], []))
    assert_same(with_teacher.jepa.context_encoder.state_dict(), without.jepa.context_encoder.state_dict(), **EXACT)


def test_flops_are_those_of_the_teacher_s_pass(teacher):
    small = module_of(*STUDENT, f"objective.teacher={teacher}").image_flops
    own = module_of(*STUDENT).image_flops
    passes = [flops._target_flops(1, 3) for flops in (small, own)]
    encoder = ijepa.load_encoder(teacher).encoder
    assert passes[0] == encoder.embedding_flops(64) + encoder.block_flops(64)
    assert passes[0] < passes[1]
    # counted on copies of their own: networks that are trained may be sharded, or compute in bf16
    assert next(small.target_encoder.encoder.parameters()).device.type == "meta"


@pytest.mark.integration
def test_a_run_with_a_teacher_resumes_without_its_folder(teacher, invoke, tmp_path):
    """And equals a run that was not stopped, to the bit; the teacher does not change."""
    moved = tmp_path / "teacher"
    shutil.copytree(teacher, moved)
    every = ["callbacks.checkpoint_every_steps=2", "callbacks.checkpoint_keep=9"]
    values = [*STUDENT, f"objective.teacher={moved}", *every]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    code, said, error = invoke("train.py", *values, f"run_dir={whole}")
    assert code == 0, error
    assert "frozen teacher 0.0 M parameters, width 24" in said
    shutil.copytree(whole, stopped)
    RunFolder(stopped).summary.unlink()
    shutil.rmtree(moved)
    back = f"resume={stopped}/checkpoints/step-000002.ckpt"
    code, _, error = invoke("train.py", back, f"objective.teacher={teacher}", "force=true")
    assert code == 2
    assert error.endswith(f"objective.teacher={moved} would become {teacher}; omit that, or start a new run\n")
    code, _, error = invoke("train.py", back)
    assert code == 0, error
    first, second = (torch.load(RunFolder(folder).checkpoints.last, weights_only=True)["state_dict"]
                     for folder in (whole, stopped))  # fmt: skip
    assert_same(first, second, **EXACT)
    kept, trained = (ijepa.load_encoder(path).state_dict() for path in (stopped / "teacher.safetensors", teacher))
    assert_same(kept, trained, **EXACT)
    exported = ijepa.load_encoder(stopped)
    assert exported.spec.width == 36
    assert set(json.loads((stopped / "summary.json").read_text())["results"]["target encoder"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            ["objective.teacher={teacher}", "model.patch_size=2"],
            "teacher={teacher}: its encoder has patch_size=",
        ),
        (["objective.teacher={teacher}", "objective.target=pixels"], "is not used with objective.target=pixels"),
        (["objective.teacher=nowhere"], "objective.teacher=nowhere: "),
        (["objective.teacher={teacher}", "objective.target_depths=[0,3]"], "at most 2, the encoder's blocks"),
    ],
)
def test_mistakes(teacher, invoke, tmp_path, changes, problem):
    changes = [change.format(teacher=teacher) for change in changes]
    code, _, error = invoke("train.py", *RUN, *changes, f"run_dir={tmp_path / 'run'}")
    assert code == 2
    assert problem.format(teacher=teacher) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_module_s_checkpoint_holds_the_teacher(teacher, tmp_path):
    moved = tmp_path / "teacher"
    shutil.copytree(teacher, moved)
    config = train_config(*STUDENT, f"objective.teacher={moved}")
    module = ijepa.PretrainingModule
    built = build.pretraining(config, 100, module)[0]
    built.config, built.training_images = config, 100
    torch.save({**built.checkpoint_extras(), "state_dict": built.state_dict()}, tmp_path / "a.ckpt")
    shutil.rmtree(moved)
    loaded = module.load_from_checkpoint(tmp_path / "a.ckpt")
    assert_same(loaded.state_dict(), built.state_dict(), **EXACT)
    assert loaded.jepa.teacher.spec == built.jepa.teacher.spec


def test_a_file_with_a_context_encoder_alone_can_be_a_teacher(teacher, tmp_path):
    encoder = ijepa.load_encoder(teacher, encoder="context")
    timm.write(tmp_path / "context.safetensors", encoder.encoder, encoder.spec, "context")
    found = module_of(*STUDENT, f"objective.teacher={tmp_path / 'context.safetensors'}").jepa.teacher
    assert_same(found.encoder.state_dict(), encoder.encoder.state_dict(), **EXACT)


def test_a_teacher_stays_in_evaluation_mode(teacher):
    jepa = module_of(*STUDENT, f"objective.teacher={teacher}").train().jepa
    assert isinstance(jepa.teacher, Teacher)
    assert not jepa.teacher.training
    assert not jepa.teacher.encoder.training
    assert isinstance(jepa.statistics, TargetStatistics)
    assert jepa.statistics.training
