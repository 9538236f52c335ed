"""Which channels of a PyTorch module can only go together, which must stay and why, by a graph of dependencies.

The graph is torch-pruning's (Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023), read off the gradients
of one call.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core.errors import MissingExtra, Refused
from trimtab.core.protocols import Array
from trimtab.core.values import Signature
from trimtab.formats.torch_tracing import (
    FOREIGN_ERRORS,
    first_line,
    import_torch,
    named_outputs,
    quiet,
    random_inputs,
)
from trimtab.techniques.structure import tied

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
_WIDTHS = ("all_head_size", "inner_dim")  # what modules call the width of all their heads together

_REACHES = "its channels reach an output"
_TIED = "its weight is shared with another layer"
_COMPUTED = "its weight is computed from other tensors"
_RECURRENT = "its channels are the state of a recurrent layer"
_UNTRACED = "the dependency graph can't trace it"
_UNCLEAR = "it belongs to attention whose heads can't be told apart"
_STREAM = "attention reads or writes its channels; width=true prunes them too"
_MIXED = "the parts of a grouped layer can't be told apart in it"
_SINGLE = "nothing of it can be spared"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Channels that several layers share, so that they can only be removed together.

    `root` is the layer that counts them: its outputs, or its inputs where `inputs` says so. `units` [unit, channel] are
    what goes as one: a channel alone, the same channel of every part of a grouped layer, or a head of `attention`.
    `layers` are those that lose outputs; `link` is torch-pruning's own view of the group.
    """

    root: str
    inputs: bool = False
    units: Array
    layers: tuple[str, ...]
    attention: str | None = None
    link: Any


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """The units of a group that are to be removed."""

    group: Group
    removed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """A layer or operation that shares the channels of a group: whether it makes or only takes them, and how many."""

    layer: Any
    makes: bool
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attention:
    """What is known of attention: modules by the number of the group that is their heads, and layers.

    `reads` are the layers that take what attention reads, `unclear` those of modules whose heads were not found.
    """

    heads: Mapping[int, str]
    reads: frozenset[Any]
    unclear: frozenset[Any]


class ChannelGraph:
    """The dependency graph of a module, which is pruned in place.

    Raises:
        Refused: The module can't be traced; the message holds the reason.
    """

    def __init__(self, module: Any, signature: Signature) -> None:
        pruning, torch = import_pruning(), import_torch("pruning")
        self._module, self._nn, self._output = module, torch.nn, pruning.ops._OutputOp
        self._layers = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        with _tracing(), torch.enable_grad():
            self._graph = pruning.DependencyGraph().build_dependency(
                module,
                example_inputs=random_inputs(signature.inputs),
                output_transform=_followed,
                customized_pruners={torch.nn.LayerNorm: _layer_norm_pruner()},
                verbose=False,
            )
        self._names = {part: name for name, part in module.named_modules()}
        self._tied = tied(module)

    def groups(self, width: bool) -> tuple[list[Group], dict[str, str]]:
        """Return the groups that can be pruned, and why each of the other layers is kept, by its name.

        Without `width` what attention reads and writes stays as wide as it is: heads, and the layers between, go.
        """
        links = self._links()
        attention = self._attention(links)
        found: list[Group] = []
        kept = dict.fromkeys(self._untraced(), _UNTRACED)
        for number, link in enumerate(links):
            owner = attention.heads.get(number)
            group: Group | str | None = self._barred(link)
            if group is None and owner is not None:
                group = self._heads(link, owner)
            elif group is None:
                group = self._bound(link, attention, width) or self._channels(link)
            if isinstance(group, Group):
                found.append(group)
            elif group is not None:
                kept.update(dict.fromkeys(self._makers(link), group))
        return found, kept

    def scores(self, group: Group, importance: Any) -> Array | None:
        """Return how much each unit of a group matters, the mean of its channels; None where it can't be said."""
        with quiet():
            found = importance(group.link)
        if found is None:
            return None
        each = np.nan_to_num(found.detach().double().cpu().numpy())
        return np.asarray(each[group.units].mean(axis=1))

    def remove(self, cut: Cut) -> None:
        """Remove units from every layer of their group; a module that counts its heads has fewer then."""
        group = cut.group
        channels = sorted(group.units[list(cut.removed)].ravel().tolist())
        self._link(self._module.get_submodule(group.root), channels, inputs=group.inputs).prune(record_history=False)
        if group.attention is None:
            return
        part = self._module.get_submodule(group.attention)
        setattr(part, _head_name(part) or "", _head_count(part) - len(cut.removed))
        for name in _WIDTHS:
            if getattr(part, name, None) == group.units.size:
                setattr(part, name, group.units.size - len(channels))

    def _links(self) -> list[Any]:
        """Return torch-pruning's groups, without those that are part of another one.

        The graph follows some operations in one direction only, such as repeating the keys of attention.
        """
        with _tracing():
            found = list(self._graph.get_all_groups(root_module_types=self._layers))
        makers = [set(self._made_by(link)) for link in found]
        return [link for link, own in zip(found, makers, strict=True) if not any(own < other for other in makers)]

    def _parts(self, link: Any) -> list[_Part]:
        makes = self._graph.is_out_channel_pruning_fn
        return [_Part(layer=dep.target.module, makes=makes(dep.handler), channels=len(ids)) for dep, ids in link]

    def _made_by(self, link: Any) -> list[Any]:
        """Return the convolutions and linear layers that make the channels of a group."""
        return [part.layer for part in self._parts(link) if part.makes and isinstance(part.layer, self._layers)]

    def _taken_by(self, link: Any) -> list[_Part]:
        """Return the convolutions and linear layers that take the channels of a group and make others."""
        return [part for part in self._parts(link) if not part.makes and isinstance(part.layer, self._layers)]

    def _makers(self, link: Any) -> tuple[str, ...]:
        """Return the names of all layers of a group that a person would say have these channels."""
        kinds = (*self._layers, self._nn.MultiheadAttention, self._nn.Embedding)
        return tuple(self._names[p.layer] for p in self._parts(link) if p.makes and isinstance(p.layer, kinds))

    def _untraced(self) -> list[str]:
        inner = {id(layer) for layer in _inside_attention(self._module)}
        known = {id(layer) for layer in self._graph.module2node} | inner
        return [
            name for layer, name in self._names.items() if isinstance(layer, self._layers) and id(layer) not in known
        ]

    def _attention(self, links: Sequence[Any]) -> _Attention:
        """Find the groups that are heads.

        All layers of such a group are children of one module that counts heads, and together they make three times what
        the next layer takes: queries, keys and values.
        """
        owners = {
            child: name
            for name, part in self._module.named_modules()
            if _head_name(part) and not isinstance(part, self._nn.MultiheadAttention)
            for child in part.children()
            if isinstance(child, self._layers)
        }
        heads, reads = {}, set()
        for number, link in enumerate(links):
            makers, takers = self._made_by(link), self._taken_by(link)
            owner = owners.get(makers[0])
            if owner is None or not takers or any(owners.get(maker) != owner for maker in makers):
                continue
            width, count = takers[0].channels, _head_count(self._module.get_submodule(owner))
            if sum(map(outputs_of, makers)) == 3 * width and width % count == 0:
                heads[number] = owner
                reads.update(makers)
        unclear = frozenset(child for child, owner in owners.items() if owner not in heads.values())
        return _Attention(heads=heads, reads=frozenset(reads) | unclear, unclear=unclear)

    def _barred(self, link: Any) -> str | None:
        """Say why none of the channels of a group may go, or None."""
        for part in self._parts(link):
            layer = part.layer
            if isinstance(layer, self._output):
                return _REACHES
            if part.makes and isinstance(layer, self._nn.RNNBase):
                return _RECURRENT
            held = [layer] if isinstance(layer, self._nn.Parameter) else layer.parameters(recurse=False)
            if any(id(parameter) in self._tied for parameter in held):
                return _TIED
            if isinstance(layer, self._layers) and {name for name, _ in layer.named_parameters()} - {"weight", "bias"}:
                return _COMPUTED
        return None

    def _bound(self, link: Any, attention: _Attention, width: bool) -> str | None:
        """Say why attention needs the channels of a group, or None."""
        if any(layer in attention.unclear for layer in self._made_by(link)):
            return _UNCLEAR
        whole = any(isinstance(part.layer, self._nn.MultiheadAttention) for part in self._parts(link))
        read = whole or any(part.layer in attention.reads for part in self._taken_by(link))
        return _STREAM if read and not width else None

    def _heads(self, link: Any, attention: str) -> Group | str:
        """Return heads as a group, counted by the inputs of the layer that takes them."""
        taker, count = self._taken_by(link)[0], _head_count(self._module.get_submodule(attention))
        if count < 2:
            return _SINGLE
        return Group(
            root=self._names[taker.layer],
            inputs=True,
            units=np.arange(taker.channels).reshape(count, -1),
            layers=self._makers(link),
            attention=attention,
            link=self._link(taker.layer, range(taker.channels), inputs=True),
        )

    def _channels(self, link: Any) -> Group | str:
        """Return the channels of a group, those of grouped layers by their places in each part."""
        makers = self._made_by(link)
        # A depthwise layer has no importance of its own, so another one counts the channels where there is one.
        root = next((layer for layer in makers if not _depthwise(layer)), makers[0])
        link = link if root is makers[0] else self._link(root, range(outputs_of(root)))
        size, parts = outputs_of(root), [(self._parts_of(part.layer), part.channels) for part in self._parts(link)]
        split = math.lcm(*(count for count, _ in parts))
        if split > 1 and (size % split or any(count > 1 and channels != size for count, channels in parts)):
            return _MIXED
        if size < 2 * split:
            return _SINGLE
        units = np.arange(size).reshape(split, -1).T
        return Group(root=self._names[root], units=units, layers=self._makers(link), link=link)

    def _parts_of(self, layer: Any) -> int:
        """Return in how many parts of one size the channels of a layer stand side by side."""
        if isinstance(layer, self._nn.MultiheadAttention):
            return int(layer.num_heads)
        if isinstance(layer, self._nn.GroupNorm):
            return int(layer.num_groups)
        grouped = isinstance(layer, self._nn.modules.conv._ConvNd) and not _depthwise(layer)
        return int(layer.groups) if grouped else 1

    def _link(self, layer: Any, channels: Sequence[int], *, inputs: bool = False) -> Any:
        """Return torch-pruning's group of these channels of a layer."""
        pruner = self._graph.get_pruner_of_module(layer)
        remove = pruner.prune_in_channels if inputs else pruner.prune_out_channels
        return self._graph.get_pruning_group(layer, remove, list(channels))


def import_pruning() -> Any:
    """Return the module `torch_pruning`, or raise `MissingExtra` that names the command that installs it."""
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtra("torch-pruning", "compress", "pruning") from error
    return torch_pruning


def importance_of(name: str) -> Any:
    """Return torch-pruning's estimate of how much a channel matters, from all weights of its group.

    l1 and l2 are norms (Li et al. 2017), lamp is the square norm over that of what is left (Lee et al. 2021), bn-scale
    the factors of batch normalization (Liu et al. 2017), taylor weights times gradients (Molchanov et al. 2019).
    """
    known = import_pruning().pruner.importance
    makers: dict[str, Callable[[], Any]] = {
        "l1": lambda: known.GroupMagnitudeImportance(p=1),
        "l2": lambda: known.GroupMagnitudeImportance(p=2),
        "taylor": known.GroupTaylorImportance,
        "bn-scale": known.BNScaleImportance,
        "lamp": known.LAMPImportance,
    }
    return makers[name]()


def channel_counts(module: Any) -> dict[str, int]:
    """Return the number of outputs of every convolution, linear layer and `MultiheadAttention`, by their names."""
    nn = import_torch("pruning").nn
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
    inner = _inside_attention(module)
    return {
        name: outputs_of(layer)
        for name, layer in module.named_modules()
        if isinstance(layer, kinds) and layer not in inner
    }


def head_counts(module: Any) -> dict[str, int]:
    """Return the number of heads of every module that counts them, by its name."""
    return {name: _head_count(part) for name, part in module.named_modules() if _head_name(part)}


def outputs_of(layer: Any) -> int:
    """Return the number of channels that a convolution, a linear layer or attention makes."""
    names = ("out_features", "out_channels", "embed_dim")
    return int(next(getattr(layer, name) for name in names if hasattr(layer, name)))


def _head_name(part: Any) -> str | None:
    """Return the name of the attribute in which a module counts its attention heads, None where it has none."""
    counts = (name for name in _HEADS if type(getattr(part, name, None)) is int and getattr(part, name) > 0)
    return next(counts, None)


def _head_count(part: Any) -> int:
    return int(getattr(part, _head_name(part) or ""))


def _inside_attention(module: Any) -> set[Any]:
    """Return the layers inside every `MultiheadAttention`, which reads their weights without calling them."""
    nn = import_torch("pruning").nn
    whole = [part for part in module.modules() if isinstance(part, nn.MultiheadAttention)]
    return {layer for part in whole for layer in part.modules() if layer is not part}


def _depthwise(layer: Any) -> bool:
    groups = getattr(layer, "groups", 1)
    return bool(groups > 1 and groups == layer.out_channels)


def _followed(result: Any) -> list[Any]:
    """Return the outputs that depend on weights, each behind an operation that marks in the graph where they end."""
    return [value * 1 for value in named_outputs(result).values() if value.requires_grad]


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """Keep torch-pruning quiet, and raise `Refused` where it fails."""
    try:
        with quiet():
            yield
    except FOREIGN_ERRORS as error:
        raise Refused(
            f"the dependency graph can't trace this module ({first_line(error)}); "
            "it must run with gradients and return tensors"
        ) from error


def _layer_norm_pruner() -> Any:
    """Return a pruner for layer normalization: torch-pruning's own may leave its weights in another order."""
    base: Any = import_pruning().pruner.function.LayernormPruner

    class LayerNormPruner(base):  # type: ignore[misc] # torch-pruning is imported here, not at the top
        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            """Keep all channels but those of the given numbers, in their order."""
            gone = set(idxs)
            kept = [channel for channel in range(layer.normalized_shape[-1]) if channel not in gone]
            for name in ("weight", "bias"):
                if getattr(layer, name) is not None:
                    setattr(layer, name, self._prune_parameter_and_grad(getattr(layer, name), kept, -1))
            layer.normalized_shape = (*layer.normalized_shape[:-1], len(kept))
            return layer

        prune_in_channels = prune_out_channels

    return LayerNormPruner()
