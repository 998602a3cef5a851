"""AdamW with the reference implementation's parameter groups, or Muon on the blocks' matrices and AdamW on the rest."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

Named = tuple[str, nn.Parameter]

ORTHOGONALISATION_STEPS = 5
"""Of Muon's Newton-Schulz iteration."""
COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the iteration: singular values of 0.002 to 1 times the norm end between about 0.7 and 1.2 after five steps."""

STACKED_ELEMENTS = 2**22
"""At most so many elements are orthogonalised together, in bfloat16; a larger matrix keeps a device busy alone."""


def groups(named: Iterable[Named], muon: bool = False) -> list[list[Named]]:
    """The trainable parameters among ``named``, in groups: with weight decay, and in the last without.

    Biases and 1-D parameters have none. With ``muon``, the matrices of transformer blocks are a first group.
    """
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    found: list[list[Named]] = [[], [], []] if muon else [[], []]
    for name, parameter in trained:
        if parameter.ndim <= 1 or name.endswith("bias"):
            found[-1].append((name, parameter))
        elif muon and parameter.ndim == 2 and ".blocks." in f".{name}":
            found[0].append((name, parameter))
        else:
            found[-2].append((name, parameter))
    return found


def adamw(named: Iterable[Named], lr: float, betas: tuple[float, float], eps: float, fused: bool) -> AdamW:
    """AdamW on the two parameter groups of `groups`."""
    return AdamW(_arguments(groups(named)), lr=lr, betas=betas, eps=eps, fused=fused)


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """About the nearest matrices with orthonormal rows or columns, by Newton-Schulz iterations.

    Args:
        matrices: [M, N] or [B, M, N].
        dtype: of the iterations and the result; Muon tolerates bfloat16 (https://kellerjordan.github.io/posts/muon/).
    """
    a, b, c = COEFFICIENTS
    product = torch.addmm if matrices.ndim == 2 else torch.baddbmm
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value is above 1
    for _ in range(ORTHOGONALISATION_STEPS):
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=b, alpha=c), x, beta=a)  # a x + b x x' x + c x x' x x' x
    return x.mT if tall else x


class Muon(Optimizer):
    """Momentum whose updates are orthogonalised, for matrices (https://kellerjordan.github.io/posts/muon/).

    Updates are scaled to be as large as AdamW's, so that one learning rate serves both (2502.16982, section 2.2).

    Args:
        parameters: matrices, or groups of them.
        lr: learning rate.
        momentum: of the gradients' running average; the update looks one step ahead (Nesterov).
        bf16: orthogonalise in bfloat16, not float32.

    Attributes:
        found_inf: 1 [] on the parameters' device: the step is skipped, as in torch's fused optimisers.
    """

    found_inf: Tensor | None = None

    def __init__(self, parameters: Any, lr: float, momentum: float = 0.95, bf16: bool = False) -> None:
        self.dtype = torch.bfloat16 if bf16 else torch.float32
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            stacked = 1 if self.dtype == torch.float32 else STACKED_ELEMENTS  # float32 gains nothing
            for parameters in _stacks((p for p in group["params"] if p.grad is not None), stacked):
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Updates matrices of one shape."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        averages = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        changed = averages + parameters
        before = None if self.found_inf is None else [tensor.clone() for tensor in changed]
        gradients: list[Any] = [parameter.grad for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        if len(ahead) == 1:
            updates: Sequence[Tensor] = [orthogonalised(ahead[0], self.dtype)]
        else:
            updates = orthogonalised(torch.stack(ahead), self.dtype).unbind()
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        size = 0.2 * max(parameters[0].shape) ** 0.5  # the root mean square of AdamW's updates is about 0.2
        for parameter, update in zip(parameters, updates, strict=True):  # of another dtype, which foreach has not
            parameter.add_(update, alpha=-group["lr"] * size)
        if before is not None:
            for now, then in zip(changed, before, strict=True):
                now.copy_(torch.where(self.found_inf == 0, now, then))  # type: ignore[arg-type]


def _stacks(parameters: Iterable[nn.Parameter], elements: int) -> Iterator[list[Tensor]]:
    """Parameters of one shape and device together, up to ``elements``; those sharded by FSDP alone."""
    alike: dict[Any, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        sharded = hasattr(parameter, "device_mesh")
        alike[parameter if sharded else (parameter.shape, parameter.device)].append(parameter)
    for found in alike.values():
        count = max(1, elements // found[0].numel())
        yield from (found[first : first + count] for first in range(0, len(found), count))


class MuonAdamW(Optimizer):
    """`Muon` on the matrices of transformer blocks, AdamW on all else, as one optimiser.

    Args:
        named: parameters with their names.
        lr: learning rate.
        betas: of AdamW.
        eps: of AdamW.
        fused: AdamW's fused implementation.
        bf16: see `Muon`.

    Attributes:
        found_inf: see `Muon`; only with ``fused``.
    """

    found_inf: Tensor | None = None

    def __init__(
        self, named: Iterable[Named], lr: float, betas: tuple[float, float], eps: float, fused: bool, bf16: bool = False
    ) -> None:
        arguments = _arguments(groups(named, muon=True))
        self._parts: tuple[Optimizer, ...] = (
            Muon(arguments[:1], lr=lr, bf16=bf16),
            AdamW(arguments[1:], lr=lr, betas=betas, eps=eps, fused=fused),
        )
        super().__init__([group for part in self._parts for group in part.param_groups], {"lr": lr})
        self._step_supports_amp_scaling = fused
        self._share()

    def _share(self) -> None:
        """Makes both parts use this optimiser's groups and state, which are what is saved and loaded."""
        for part, chosen in zip(self._parts, (slice(0, 1), slice(1, None)), strict=True):
            part.param_groups, part.state = self.param_groups[chosen], self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.found_inf = self.found_inf  # type: ignore[attr-defined]
            part.step()
        return loss


def orthogonalisation_flops(named: Iterable[Named]) -> float:
    """FLOPs of Muon's products of matrices in one step, two per multiply-add."""
    total = 0.0
    for _, matrix in groups(named, muon=True)[0]:
        low, high = sorted(matrix.shape)
        total += ORTHOGONALISATION_STEPS * (4.0 * low * low * high + 2.0 * low**3)
    return total


def _arguments(grouped: list[list[Named]]) -> list[dict[str, Any]]:
    arguments: list[dict[str, Any]] = [{"params": [parameter for _, parameter in group]} for group in grouped]
    arguments[-1]["weight_decay"] = 0.0
    return arguments


def set_hyperparameters(optimizer: Optimizer, lr: float, weight_decay: float) -> None:
    """Sets the learning rate of all groups, and the weight decay of all but the last."""
    *decayed, undecayed = optimizer.param_groups
    for group in decayed:
        group["lr"], group["weight_decay"] = lr, weight_decay
    undecayed["lr"] = lr


def skip(optimizer: Optimizer, skipped: Tensor) -> None:
    """Makes the next step of ``optimizer`` change nothing, neither parameters nor state, if ``skipped`` [] is true.

    Fused optimisers decide on the device; for others, the CPU reads ``skipped``.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):  # torch's name for: heeds found_inf
        optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
    elif skipped:
        optimizer.zero_grad()  # to None: optimisers pass over parameters without gradients


def rekey(state: dict[str, Any], keys: dict[Any, Any]) -> dict[str, Any]:
    """An optimiser's state dict with other keys for its parameters: names instead of indices, or the reverse.

    Args:
        state: state dict of any optimiser.
        keys: maps each parameter's key to its new key.
    """
    renamed = [{**group, "params": [keys[key] for key in group["params"]]} for group in state["param_groups"]]
    return {**state, "state": {keys[key]: value for key, value in state["state"].items()}, "param_groups": renamed}
