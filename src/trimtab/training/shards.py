"""Networks of which every process holds a part: sharded weights (FSDP2) and divided layers (tensor parallel).

Their weights are PyTorch's DTensors. What is kept is whole, so that any number of processes goes on from a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature
from trimtab.formats.torch_tracing import evaluated, export, import_torch
from trimtab.training.group import Group

_EACH_FOR_ITSELF = {
    "relu", "relu_", "gelu", "silu", "silu_", "tanh", "sigmoid", "leaky_relu", "leaky_relu_", "elu", "hardtanh",
    "hardtanh_", "hardswish", "hardswish_", "softplus", "mish", "dropout", "clone",
}  # fmt: skip
"""Operators on every element for itself, by their names in torch.ops.aten: a half of the elements is half the work."""


def sharded(module: Any, blocks: Sequence[Any], group: Group) -> None:
    """Leave each process a part of every weight; a block is put together while it runs (`fully_shard`, ZeRO-3)."""
    from torch.distributed.fsdp import fully_shard

    mesh = group.mesh
    for each in (*blocks, module):
        fully_shard(each, mesh=mesh)


def divided(module: Any, pairs: Sequence[tuple[str, str]], group: Group) -> None:
    """Divide pairs of linear layers: of the first each process has some outputs, of the second the inputs from those.

    So only the second one's outputs have to be summed over processes (Shoeybi et al. 2019).
    """
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan: dict[str, Any] = {}
    for first, second in pairs:
        plan |= {first: ColwiseParallel(), second: RowwiseParallel()}
    parallelize_module(module, group.mesh, plan)


def linear_pairs(module: Any, signature: Signature, size: int) -> list[tuple[str, str]]:
    """Return the pairs of linear layers between which every element goes its own way, by their names in the module.

    Raises:
        BadInput: the module can't be traced, or has no such pair that `size` processes can divide.
    """
    with evaluated(module):
        program = export(module, signature)
    weights = program.graph_signature.inputs_to_parameters
    found: list[tuple[str, str]] = []
    for node in program.graph.nodes:
        first, after = _layer(node, module, weights), node
        while first is not None and len(after.users) == 1:
            after = next(iter(after.users))
            if second := _layer(after, module, weights):
                found.append((first, second))
            if _operator(after) not in _EACH_FOR_ITSELF:
                break
    taken: set[str] = set()
    pairs = []
    for first, second in found:  # of three in a row the middle one is in one pair only
        if taken.isdisjoint((first, second)) and module.get_submodule(first).out_features % size == 0:
            taken |= {first, second}
            pairs.append((first, second))
    if not pairs:
        raise BadInput(
            f"the network has no two linear layers in a row, with only activations between, whose width {size} "
            "processes can divide; use --parallel fsdp"
        )
    return pairs


def _layer(node: Any, module: Any, weights: Mapping[str, str]) -> str | None:
    """Return the name of the linear layer that a node of a traced program is, if its weight is nobody else's."""
    if _operator(node) != "linear" or len(node.args[1].users) > 1:
        return None
    name = weights.get(node.args[1].name, "").removesuffix(".weight")
    layer = module.get_submodule(name) if name else None
    return name if type(layer) is import_torch("training").nn.Linear else None


def _operator(node: Any) -> str:
    return str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")


def whole(tensor: Any) -> Any:
    """Return a tensor of which each process may hold a part; all of them have to ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def all_whole(state: Mapping[str, Any], group: Group) -> dict[str, Any]:
    """Return tensors whole and from all stages, in the first process; elsewhere nothing that is of use."""
    found: dict[str, Any] = {}
    for name, each in state.items():
        full = whole(each)  # one after the other, or every process would hold them all
        if group.rank == 0 or group.parallel == "pipeline":
            found[name] = full
    return group.merged(found)


def own(tensor: Any) -> Any:
    """Return the part of a tensor that this process holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def placed(tensor: Any, like: Any) -> Any:
    """Return a whole tensor as another of its shape is laid out: in memory, and over processes."""
    if hasattr(like, "placements"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return import_torch("training").empty_like(like).copy_(tensor)


def all_placed(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return those tensors that are among others by their names, laid out as they are."""
    return {name: placed(state[name], each) for name, each in like.items() if name in state}


def clip(weights: Sequence[Any], most: float, group: Group) -> None:
    """Scale the gradients so that their norm together, over all stages, is at most `most`."""
    torch = import_torch("training")
    slopes = [weight.grad for weight in weights if weight.grad is not None]
    if group.parallel != "pipeline" and len({hasattr(slope, "full_tensor") for slope in slopes}) < 2:
        torch.nn.utils.clip_grad_norm_(weights, most)
        return
    norm = math.sqrt(group.in_stages(sum(float(whole(slope.detach().square().sum())) for slope in slopes)))
    for slope in slopes:
        slope.mul_(min(1.0, most / (norm + 1e-6)))
