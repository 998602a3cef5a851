"""The objective: its terms by hand and against NumPy; terms of the user's own."""

import sys

import numpy as np
import pytest
import torch
from helpers import EXACT, TINY, assert_same, rows
from torch.nn import functional as F

from ijepa.models.targets import pixel_targets
from ijepa.training.objective import Objective, latent_objective
from ijepa.training.terms import Term, covariance_term, variance_term, within_group_covariance
from ijepa.util.errors import UserError

PLACES = torch.tensor([[0, 1, 2, 3, 7], [1, 2, 3, 4, 5], [0, 2, 3, 5, 7]] * 2)


def tensors():
    generator = torch.Generator().manual_seed(0)
    shape = (6, 2, 3, 4)
    predictions, targets = (torch.randn(shape, generator=generator) for _ in range(2))
    return predictions, targets, torch.randn(6, 5, 4, generator=generator)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l2", lambda d: (d**2).mean()),
        ("l1", lambda d: d.abs().mean()),
        ("smooth_l1", lambda d: torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5).mean()),
    ],
)
def test_distances(name, expected):
    predictions, targets, context = tensors()
    loss = latent_objective(name)(predictions, targets, context, PLACES)
    torch.testing.assert_close(loss.total, expected(predictions - targets))
    assert list(loss.parts) == ["distance"]


def test_the_distance_has_a_weight():
    predictions, targets, context = tensors()
    full, half, none = (
        latent_objective("l2", 0.5, 0.02, distance_weight=weight)(predictions, targets, context, PLACES)
        for weight in (1, 0.5, 0)
    )
    assert full.parts == half.parts == none.parts
    torch.testing.assert_close(full.total - half.total, full.parts["distance"] / 2)
    torch.testing.assert_close(none.total, 0.5 * none.parts["variance"] + 0.02 * none.parts["covariance"])


def test_pixels_have_a_term_of_their_own():
    predictions, targets, context = tensors()
    predicted, true = (part.split([3, predictions.shape[-1] - 3], -1) for part in (predictions, targets))
    plain = latent_objective("l2", 0.5, 0.02, "predictions")(predicted[0], true[0], context, PLACES)
    both = latent_objective("l2", 0.5, 0.02, "predictions", pixels=predictions.shape[-1] - 3, pixel_weight=0.25)
    loss = both(predictions, targets, context, PLACES)
    for name, value in plain.parts.items():
        torch.testing.assert_close(loss.parts[name], value)
    torch.testing.assert_close(loss.parts["pixels"], (predicted[1] - true[1]).square().mean())
    torch.testing.assert_close(loss.total, plain.total + 0.25 * loss.parts["pixels"])


def test_regularisers_against_numpy():
    predictions, targets, context = tensors()
    pooled = context.mean(1).numpy()
    deviation = np.sqrt(pooled.var(0, ddof=1) + 1e-4)
    covariance = np.cov(pooled.T)
    off_diagonal = (covariance**2).sum() - (np.diag(covariance) ** 2).sum()
    loss = latent_objective("l2", 0.5, 0.02)(predictions, targets, context, PLACES)
    assert loss.parts["variance"].item() == pytest.approx(np.maximum(1 - deviation, 0).mean(), rel=1e-5)
    assert loss.parts["covariance"].item() == pytest.approx(off_diagonal / 4, rel=1e-5)
    expected = loss.parts["distance"] + 0.5 * loss.parts["variance"] + 0.02 * loss.parts["covariance"]
    torch.testing.assert_close(loss.total, expected)
    on_predictions = latent_objective("l2", 0.5, 0.02, "predictions")(predictions, targets, context, PLACES)
    torch.testing.assert_close(on_predictions.parts["variance"], variance_term(predictions.mean((1, 2)).T.cov()))


def test_padding_is_left_out_of_the_pooled_context():
    predictions, targets, context = tensors()
    valid = torch.ones(6, 5, dtype=torch.bool)
    valid[:, 3:] = False
    loss = latent_objective("l2", 1.0, 1.0)(predictions, targets, context, PLACES, valid)
    torch.testing.assert_close(loss.parts["covariance"], covariance_term(context[:, :3].mean(1).T.cov()))
    tokens = latent_objective("l2", 1.0, 1.0, "tokens", 9)
    rest = tokens(predictions, targets, context[:, :3], PLACES[:, :3])
    context[:, 3:] = 1e6
    padded = tokens(predictions, targets, context, PLACES, valid)
    assert padded.total == rest.total
    assert padded.parts == rest.parts


def test_tokens_are_compared_with_those_at_their_place():
    predictions, targets, context = tensors()
    flat, places = context.flatten(0, 1).numpy(), PLACES.flatten().numpy()
    centred = np.stack([token - flat[places == place].mean(0) for token, place in zip(flat, places, strict=True)])
    expected = centred.T @ centred / (len(flat) - len(set(places)))
    found = within_group_covariance(context.flatten(0, 1), PLACES.flatten(), 9)
    more = torch.cat([context.flatten(0, 1), 100 * torch.randn(3, context.shape[-1])])
    left_out = torch.cat([PLACES.flatten(), torch.full((3,), 9)])
    torch.testing.assert_close(within_group_covariance(more, left_out, 9), found)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    loss = latent_objective("l2", 0.5, 0.02, "tokens", 9)(predictions, targets, context, PLACES)
    torch.testing.assert_close(loss.parts["variance"], variance_term(found))
    torch.testing.assert_close(loss.parts["covariance"], covariance_term(found))
    places_alone = torch.randn(9, 4)[PLACES]  # positional collapse
    loss = latent_objective("l2", 1.0, 1.0, "tokens", 9)(predictions, targets, places_alone, PLACES)
    assert loss.parts["variance"] > 0.98


def test_pixel_targets_are_normalised_patches():
    images = torch.randn(2, 3, 8, 12)
    patches = pixel_targets(images, 4)
    assert patches.shape == (2, 6, 48)
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 6), atol=1e-6, rtol=0)
    torch.testing.assert_close(patches.var(-1), torch.ones(2, 6), atol=1e-4, rtol=0)
    own = images[1, :, 4:8, 8:12].flatten()
    torch.testing.assert_close(patches[1, 5], F.layer_norm(own, (48,)) * (47 / 48) ** 0.5, atol=1e-4, rtol=0)


class Centred(Term):
    """Distance to the centre of the targets, which moves with them: a term with a buffer and a parameter."""

    def __init__(self, width, momentum=0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(width))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, outputs):
        self.centre.lerp_(outputs.targets.flatten(0, -2).mean(0), 1 - self.momentum)
        return self.scale * (outputs.predictions - self.centre).square().mean()


def test_further_terms_are_added_and_told_by_name():
    predictions, targets, context = tensors()
    centred = Centred(4)
    objective = latent_objective("l2", 0.5, 0.02, extra_terms={"centred": (centred, 3.0)})
    loss = objective(predictions, targets, context, PLACES)
    assert list(loss.parts) == ["distance", "variance", "covariance", "centred"]
    plain = latent_objective("l2", 0.5, 0.02)(predictions, targets, context, PLACES)
    torch.testing.assert_close(loss.total, plain.total + 3 * loss.parts["centred"])
    assert list(objective.state_dict()) == ["terms.centred.scale", "terms.centred.centre"]
    assert [name for name, _ in objective.named_parameters()] == ["terms.centred.scale"]


def test_a_term_that_gives_no_scalar():
    class Wrong(Term):
        def forward(self, outputs):
            return outputs.predictions

    predictions, targets, context = tensors()
    objective = Objective({"wrong": Wrong()}, {"wrong": 1.0})
    with pytest.raises(UserError, match=r"objective.terms.wrong: gives a tensor of shape \[6, 2, 3, 4\]"):
        objective(predictions, targets, context, PLACES)


OWN = """
import torch
from ijepa.training.terms import Outputs, Term


class Norm(Term):
    def __init__(self, width: int, power: int = 2) -> None:
        super().__init__()
        self.power = power
        self.register_buffer("steps", torch.zeros(()))
        self.target_norm = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, outputs: Outputs) -> torch.Tensor:
        self.steps += 1
        return (outputs.context.norm(dim=-1).mean() - self.target_norm).abs() ** self.power


class Whole(Norm):
    needs_whole_batch = True
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_terms.py").write_text(OWN)
    options = tmp_path / "own_conf" / "objective"
    options.mkdir(parents=True)
    (options / "normed.yaml").write_text(
        "defaults: [l2, _self_]\nterms:\n  norm:\n    _target_: own_terms.Norm\n    weight: 0.1\n    power: 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield ["--config-dir", tmp_path / "own_conf", "objective=normed", *TINY[1:], "data=digits", "data.batch_size=16",
           "schedule=constant", "task=knn"]  # fmt: skip
    sys.modules.pop("own_terms", None)


def test_a_run_with_a_term_of_the_user_s_own_resumes_to_the_bit(own, tmp_path, invoke):
    for steps in (3, 6):
        code, _, err = invoke("train.py", *own, f"run_dir={tmp_path / f'{steps}'}", f"schedule.max_steps={steps}")
        assert code == 0, err
    resumed = (f"resume={tmp_path / '3'}", "schedule.max_steps=6")
    code, _, err = invoke("train.py", *resumed)
    assert code == 2
    assert "error: objective.terms.norm._target_=own_terms." in err
    assert err.endswith("if you know the file, add trust=own_terms\n")
    code, _, err = invoke("train.py", *resumed, "trust=own_terms")
    assert code == 0, err
    one, other = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("3", "6"))
    assert_same(one["state_dict"], other["state_dict"], **EXACT)
    assert one["state_dict"]["objective.terms.norm.steps"] == 6
    assert one["state_dict"]["objective.terms.norm.target_norm"] != 1
    cut, whole = (rows(tmp_path / name) for name in ("3", "6"))
    assert [row["train/norm"] for row in cut] == [row["train/norm"] for row in whole]
    assert float(cut[-1]["train/norm"]) > 0


def test_mistakes_in_terms(own, tmp_path, invoke):
    folder = f"run_dir={tmp_path / 'run'}"
    norm = "objective.terms.norm"
    taken = "objective.terms.distance"
    for override, line in {
        f"++{norm}.pow=2": f"{norm}.pow=2: no such key; own_terms.Norm takes power",
        f"++{norm}.weight=-1": f"{norm}.weight=-1: should be greater than or equal to 0",
        f"++{norm}.weight=true": f"{norm}.weight=true: is neither a number nor a name; see --help",
        f"+{taken}={{_target_: own_terms.Norm}}": f"{taken}=own_terms.Norm: the name is taken; choose another",
        f"++{norm}._target_=torch.add": f"{norm}._target_=torch.add: ",
    }.items():
        code, _, err = invoke("train.py", *own, folder, override)
        assert (code, err[: len(line) + 7]) == (2, f"error: {line}"), override
    arguments = ["++objective.terms.norm._target_=own_terms.Whole", "hardware.accumulation=2"]
    code, _, err = invoke("train.py", *own, folder, *arguments)
    assert "hardware.accumulation=2: objective.terms.norm compares the images of a batch" in err
