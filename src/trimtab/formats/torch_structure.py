"""How the structure of a PyTorch module differs from what its factory builds: read off as values, and made again.

A layer of torch.nn that was resized, replaced or added is kept as the arguments of its constructor, and only classes of
one list (`LAYERS`) are ever built from them. Of any other module that stays, its plain attributes and the shapes of its
own tensors are kept. Nothing is pickled, and no technique is replayed.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, Refused
from trimtab.core.values import Scalar
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, first_line, import_torch

Plain = Scalar | tuple[Scalar, ...]
"""What an attribute or an argument of a constructor may be to be kept."""

Arguments = tuple[tuple[str, Plain], ...]

_DIMENSIONS = ("1d", "2d", "3d")
_SIZED = ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm", "MaxPool", "AvgPool", "AdaptiveMaxPool",
          "AdaptiveAvgPool", "Dropout", "ZeroPad", "ConstantPad", "ReflectionPad", "ReplicationPad",
          "CircularPad")  # fmt: skip
_OTHERS = """
    Sequential Identity Flatten Unflatten Linear Bilinear Embedding EmbeddingBag MultiheadAttention
    LayerNorm RMSNorm GroupNorm LocalResponseNorm Dropout AlphaDropout FeatureAlphaDropout
    ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish GLU Sigmoid LogSigmoid Tanh Softplus Softsign
    Softmax Softmax2d LogSoftmax Softmin Softshrink Hardshrink Tanhshrink Hardsigmoid Hardswish Hardtanh Threshold
    PixelShuffle PixelUnshuffle ChannelShuffle Upsample UpsamplingNearest2d UpsamplingBilinear2d Fold Unfold
"""

LAYERS = frozenset(name + size for name in _SIZED for size in _DIMENSIONS) | frozenset(_OTHERS.split())
"""The classes of torch.nn that may be built from a model's folder: their arguments can be read off their attributes."""

_PRESENCE = {"bias": ("bias", "in_proj_bias"), "add_bias_kv": ("bias_k",)}
"""Arguments that say whether a layer has a tensor, with the names that it may have."""

_SCALARS = (int, float, bool, str, type(None))
_OPAQUE = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """A layer of torch.nn by the arguments of its constructor, those at their defaults left out.

    `dtype` is the type of its weights, None where it has none; `children` are the layers of a Sequential, in order.
    """

    kind: str
    arguments: Arguments = ()
    dtype: str | None = None
    children: tuple[tuple[str, LayerSpec], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTensor:
    """A parameter, or else a buffer, that belongs to a module itself, such as an embedding of positions."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What differs at one place of a module: the dotted path of a part, empty for the module itself.

    Either `layer` stands there now, or what stood there (a part, a tensor, an attribute) is `removed`, or a module that
    stays has other `attributes` and `tensors` of its own. A part that is None now is such an attribute.
    """

    path: str
    layer: LayerSpec | None = None
    removed: bool = False
    attributes: Arguments = ()
    tensors: tuple[OwnTensor, ...] = ()


def difference(built: Any, changed: Any) -> tuple[Edit, ...]:
    """Return the edits that turn a module as its factory builds it into the structure of a changed one.

    Neither module is touched. Values of weights are not compared; hooks, functions and private attributes are not seen.

    Raises:
        Refused: A new part is no layer of the list, or a tensor can't be had from the weights; the message names it.
    """
    return tuple(_edits("", built, changed, {}))


def restructure(module: Any, edits: Sequence[Edit]) -> Any:
    """Apply the edits to a module in order and return it; a new tensor's values are to be filled in from the weights.

    Raises:
        BadInput: An edit names what is not there, or a layer that may not be built.
    """
    for edit in edits:
        try:
            module = _applied(module, edit)
        except FOREIGN_ERRORS as error:
            raise BadInput(
                f"the change of {_called(edit.path)} that the model's folder holds can't be made "
                f"({first_line(error)}); it is damaged or of another version: make the model again"
            ) from error
    return module


def _edits(path: str, built: Any, changed: Any, seen: dict[int, Any]) -> Iterator[Edit]:
    """Yield the edits of one part; `seen` are the parts of the factory's module with what became of them."""
    first = id(built) not in seen
    shared_no_more = seen.setdefault(id(built), changed) is not changed
    if shared_no_more or not _same_class(built, changed):
        yield Edit(path=path, layer=_spec(changed, path))
        return
    specs = _specs(built, changed, path)
    if specs is not None:
        if specs[0] != specs[1]:
            yield Edit(path=path, layer=specs[1])
    elif first:
        yield from _edits_inside(path, built, changed, seen)


def _same_class(one: Any, other: Any) -> bool:
    """Say whether two modules are of one class; one that is made inside a function is another object each time."""
    kinds = [(type(module).__module__, type(module).__qualname__) for module in (one, other)]
    return type(one) is type(other) or kinds[0] == kinds[1]


def _specs(built: Any, changed: Any, path: str) -> tuple[LayerSpec, LayerSpec] | None:
    """Return both as layers of the list, or None where one has to be looked into.

    That is a Sequential, a module of the user's, or a layer whose tensors its attributes don't tell.
    """
    if not _listed(changed) or type(changed).__name__ == "Sequential":
        return None
    try:
        return _spec(built, path), _spec(changed, path)
    except Refused:
        return None


def _edits_inside(path: str, built: Any, changed: Any, seen: dict[int, Any]) -> Iterator[Edit]:
    if _reordered(built, changed):
        yield Edit(path=path, layer=_spec(changed, path))
        return
    yield from _removed(path, built, changed)
    before = _attributes(built)
    attributes = tuple(
        (name, value)
        for name, value in _attributes(changed).items()
        if name not in before or repr(before[name]) != repr(value)  # NaN is NaN, and 1 is not True
    )
    tensors = _changed_tensors(path, built, changed)
    if attributes or tensors:
        yield Edit(path=path, attributes=attributes, tensors=tensors)
    old = _children(built)
    for name, child in _children(changed).items():
        place = _join(path, name)
        if name in old:
            yield from _edits(place, old[name], child, seen)
        else:
            yield Edit(path=place, layer=_spec(child, place))


def _reordered(built: Any, changed: Any) -> bool:
    """Say whether a container would have its parts in another order if they were edited one by one."""
    nn = import_torch("comparing PyTorch modules").nn
    names = list(_children(changed))
    made = [name for name in built._modules if name in names] + [name for name in names if name not in built._modules]
    return isinstance(changed, nn.Sequential | nn.ModuleList | nn.ModuleDict) and names != made


def _removed(path: str, built: Any, changed: Any) -> Iterator[Edit]:
    """Yield what the factory's module has and the changed one has no more, or has a plain value in place of."""
    kept, plain, old = _children(changed) | _tensors(changed), _attributes(changed), _attributes(built)
    for name in {**_children(built), **_tensors(built), **old}:
        if name in kept or (name in plain and (name in old or plain[name] is None)):
            continue
        if name in plain or name not in vars(changed):
            yield Edit(path=_join(path, name), removed=True)
        elif name not in old:  # an attribute that was filled, such as a cache, is left as the factory makes it
            kind = type(vars(changed)[name]).__name__
            raise Refused(f"{_called(_join(path, name))} has become a {kind}, which can't be kept without pickle")


def _changed_tensors(path: str, built: Any, changed: Any) -> tuple[OwnTensor, ...]:
    old, found = _tensors(built), []
    for name, tensor in _tensors(changed).items():
        own = _own(changed, name, tensor)
        same = name in old and _own(built, name, old[name]) == own
        if name in changed._non_persistent_buffers_set and not (same and _equal(old[name], tensor)):
            raise Refused(
                f"{_called(_join(path, name))} is not what the factory builds, and a buffer that is not persistent "
                "is not among the weights; register it as persistent, or change the factory"
            )
        if not same:
            found.append(own)
    return tuple(found)


def _own(module: Any, name: str, tensor: Any) -> OwnTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return OwnTensor(name=name, shape=tuple(tensor.shape), dtype=dtype, parameter=name in module._parameters)


def _equal(one: Any, other: Any) -> bool:
    one, other = one.detach().cpu(), other.detach().cpu()
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _children(module: Any) -> dict[str, Any]:
    return {name: child for name, child in module._modules.items() if child is not None}


def _tensors(module: Any) -> dict[str, Any]:
    """Return the parameters and buffers that belong to the module itself."""
    return {name: value for name, value in {**module._parameters, **module._buffers}.items() if value is not None}


def _attributes(module: Any) -> dict[str, Plain]:
    """Return the plain public attributes; a part or tensor that may be there and is not is None."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    held = {**public, **module._modules, **module._parameters, **module._buffers}
    plain = {name: _plain(value) for name, value in held.items()}
    return {name: value for name, value in plain.items() if value is not _OPAQUE}


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, or `_OPAQUE`."""
    if isinstance(value, np.generic):  # as arithmetic on shapes leaves it
        value = value.item()
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        items = tuple(map(_plain, value))
        return items if all(type(item) in _SCALARS for item in items) else _OPAQUE
    return value if type(value) in _SCALARS else _OPAQUE


def _listed(layer: Any) -> bool:
    """Say whether a layer is of exactly one of the classes of the list."""
    kind = type(layer).__name__
    return kind in LAYERS and type(layer) is getattr(import_torch("comparing PyTorch modules").nn, kind, None)


def _spec(layer: Any, path: str) -> LayerSpec:
    """Return a layer as its constructor's arguments; raise `Refused` where they don't make the same layer again."""
    torch = import_torch("describing a PyTorch layer")
    kind = type(layer).__name__
    if not _listed(layer):
        raise Refused(
            f"{_called(path)} is a {kind}, which can't be rebuilt without its code: a new part must be a layer of "
            "torch.nn, such as a Linear, a Conv2d or a Sequential of them"
        )
    if kind == "Sequential":
        children = tuple((name, _spec(child, _join(path, name))) for name, child in layer._modules.items())
        return LayerSpec(kind=kind, children=children)
    sizes = _sizes(layer)
    dtypes = {dtype for _, dtype in sizes.values() if dtype.is_floating_point or dtype.is_complex}
    spec = LayerSpec(
        kind=kind,
        arguments=_arguments(layer, path),
        dtype=str(min(dtypes, key=str)).removeprefix("torch.") if dtypes else None,
    )
    try:
        with torch.device("meta"):
            made = _sizes(_made(spec))
    except FOREIGN_ERRORS as error:
        raise Refused(f"{_called(path)} is a {kind} that its attributes don't describe: {first_line(error)}") from error
    if made != sizes:
        raise Refused(
            f"{_called(path)} is a {kind} whose attributes describe other tensors than it has; set them as its "
            "constructor would"
        )
    return spec


def _sizes(layer: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    held = (*layer.named_parameters(), *layer.named_buffers())
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in held}


def _arguments(layer: Any, path: str) -> Arguments:
    """Return the arguments that a layer's constructor takes, read off the attributes of the same names."""
    found = []
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if name in _PRESENCE:
            value = any(getattr(layer, tensor, None) is not None for tensor in _PRESENCE[name])
        elif named and hasattr(layer, name) and name not in ("device", "dtype"):
            held = getattr(layer, name)
            value = _plain(tuple(held) if isinstance(held, list) else held)
        else:
            continue
        if value is _OPAQUE:
            raise Refused(f"{_called(path)} is a {type(layer).__name__} whose {name} is neither a number nor a text")
        if repr(value) != repr(parameter.default):
            found.append((name, value))
    return tuple(found)


def _made(spec: LayerSpec) -> Any:
    """Return a new layer; its weights are those that its constructor draws."""
    nn = import_torch("building a PyTorch layer").nn
    if spec.kind not in LAYERS or not hasattr(nn, spec.kind):
        raise ValueError(f"{spec.kind!r} is no layer that may be built")
    kind = getattr(nn, spec.kind)
    if spec.kind == "Sequential":
        return kind(OrderedDict((name, _made(child)) for name, child in spec.children))
    typed = {} if spec.dtype is None else {"dtype": _dtype(spec.dtype)}
    return kind(**dict(spec.arguments), **typed)


def _dtype(name: str) -> Any:
    torch = import_torch("building a PyTorch layer")
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no type of a tensor")
    return found


def _applied(module: Any, edit: Edit) -> Any:
    """Apply one edit and return the module, which is a new one where the edit replaces it as a whole."""
    parent, _, name = edit.path.rpartition(".")
    if edit.removed:
        delattr(module.get_submodule(parent), name)
        return module
    if edit.layer is not None:
        if not edit.path:
            return _in_place_of(module, _made(edit.layer), module.training)
        owner = module.get_submodule(parent)
        setattr(owner, name, _in_place_of(owner._modules.get(name), _made(edit.layer), owner.training))
    standing = module.get_submodule(edit.path)
    every = vars(import_torch("restructuring a PyTorch module").nn.Module())
    for attribute, value in edit.attributes:
        if attribute in every or callable(getattr(type(standing), attribute, None)):
            raise ValueError(f"{attribute!r} is what makes it a module")
        setattr(standing, attribute, value)
    for tensor in edit.tensors:
        _put(standing, tensor)
    return module


def _in_place_of(old: Any, layer: Any, training: bool) -> Any:
    """Return a new layer in the mode of its place, frozen where the one before it was."""
    learns = [parameter.requires_grad for parameter in old.parameters()] if old is not None else []
    return layer.train(training).requires_grad_(any(learns) or not learns)


def _put(module: Any, own: OwnTensor) -> None:
    """Give a module a tensor of its own of that shape, in the place of what has its name."""
    torch = import_torch("restructuring a PyTorch module")
    value = torch.zeros(own.shape, dtype=_dtype(own.dtype))
    old = module._parameters.get(own.name)
    there = module._parameters if own.parameter else module._buffers
    others = {**module._parameters, **module._buffers, **module._modules, **vars(module)}
    if own.name in others and own.name not in there:
        delattr(module, own.name)
    if own.parameter:
        learns = old.requires_grad if old is not None else value.is_floating_point() or value.is_complex()
        setattr(module, own.name, torch.nn.Parameter(value, requires_grad=learns))
    else:
        module.register_buffer(own.name, value)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _called(path: str) -> str:
    return path or "the module itself"
