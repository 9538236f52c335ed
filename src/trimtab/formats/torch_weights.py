"""The weights of PyTorch modules: read from files without running code, filled in by name, shared as they were."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput, Unsafe
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, first_line, import_torch

Aliases = tuple[tuple[str, str], ...]
"""Names of tensors that share the memory of another one, each with the name of that one."""

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def load_weights(module: Any, path: Path, trust_pickle: bool = False) -> None:
    """Load a `.safetensors` file or a PyTorch checkpoint into the module; every name and shape must fit.

    Raises:
        Unsafe: The checkpoint holds more than tensors in plain containers, and `trust_pickle` is not given.
        BadInput: There is no such file, it is damaged, or names or shapes differ.
    """
    if not path.is_file():
        raise BadInput(f"there is no weights file {path}; check --weights")
    tensors = read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path, trust_pickle)
    fill(module, tensors, str(path))


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a `.safetensors` file by name; raise `BadInput` when it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded: dict[str, Any] = load_file(path)
    except SafetensorError as error:
        raise BadInput(f"{path} is not a safetensors file, or it is damaged ({error}); fetch it again") from error
    return loaded


def _read_checkpoint(path: Path, trust_pickle: bool) -> dict[str, Any]:
    import pickle

    torch = import_torch("reading PyTorch weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        raise Unsafe(
            f"{path} is a pickle that holds more than tensors, so loading it could run code; save module.state_dict() "
            "instead, as safetensors if you can, or add --trust-pickle if you trust who made it"
        ) from error
    except FOREIGN_ERRORS as error:
        raise BadInput(f"{path} is not a PyTorch checkpoint, or it is damaged ({first_line(error)})") from error
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise BadInput(f"{path} holds a {type(content).__name__} that is no state_dict; save module.state_dict()")
    tensors = dict(content)
    if tensors and all(name.startswith("module.") for name in tensors):  # as torch.nn.DataParallel names them
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def fill(module: Any, tensors: Mapping[str, Any], source: str) -> None:
    """Copy tensors into the module by name; raise `BadInput`, naming their source, unless all names and shapes fit."""
    try:
        missing, unexpected = module.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise BadInput(f"the weights in {source} don't fit the module: {(lines or [first_line(error)])[0]}") from error
    problems = [f"missing: {few(missing)}"] if missing else []
    problems += [f"not in the module: {few(unexpected)}"] if unexpected else []
    if problems:
        raise BadInput(f"the weights in {source} don't fit the module; {'; '.join(problems)}")


def few(names: Sequence[str]) -> str:
    """Return the first five names as a text, and how many there are besides."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def unshared(module: Any) -> tuple[dict[str, Any], Aliases]:
    """Return the tensors of a module, each stored once, and the names that share another one's memory."""
    torch = import_torch("saving a PyTorch model")
    kept: dict[Any, str] = {}
    tensors: dict[str, Any] = {}
    aliases = []
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            raise BadInput(f"the module keeps {name!r} as a {type(value).__name__}; only tensors can be saved")
        place = _place(value)
        if value.numel() and place in kept:
            aliases.append((name, kept[place]))
        else:
            kept[place] = name
            tensors[name] = value.detach().cpu().contiguous().clone()
    return tensors, tuple(aliases)


def share(module: Any, aliases: Aliases) -> None:
    """Let the tensors of a module share memory as `unshared` told it of the module that was saved, and not otherwise.

    Layers that were built anew have lost what the factory shares; tensors that learn apart must lie apart.
    """
    held = module.state_dict(keep_vars=True)
    shared = dict(aliases)
    taken: set[Any] = set()
    for name in sorted(held):
        if name in shared and shared[name] in held:
            tensor = held[shared[name]]
            if type(tensor) is type(held[name]) and _place(tensor) != _place(held[name]):
                held[name] = _set(module, name, tensor)
            continue
        if held[name].numel() and _place(held[name]) in taken:
            held[name] = _set(module, name, copy.deepcopy(held[name]))
        taken.add(_place(held[name]))


def _set(module: Any, name: str, tensor: Any) -> Any:
    owner, _, last = name.rpartition(".")
    setattr(module.get_submodule(owner), last, tensor)
    return tensor


def _place(tensor: Any) -> tuple[Any, ...]:
    """Return where a tensor lies and how it is read: what is equal is one and the same."""
    return (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
