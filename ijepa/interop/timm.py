"""timm's VisionTransformer: the names are this project's own; timm keeps the positions as a parameter."""

from ijepa.interop.meta import State
from ijepa.models.encoder import Encoder


def to_timm(encoder: Encoder) -> State:
    """A state dict that ``VisionTransformer(class_token=False, global_pool="avg", num_classes=0, fc_norm=False)`` loads
    strictly.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    table = encoder.positions(encoder.grid, next(encoder.parameters()).device)
    return {"pos_embed": table[None].detach().cpu().contiguous(), **state}


def from_timm(state: State) -> State:
    """The encoder's state dict: without the positions, which it computes."""
    return {name: tensor for name, tensor in state.items() if name != "pos_embed"}
