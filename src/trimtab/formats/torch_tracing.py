"""How a PyTorch module is called: example inputs, names of outputs, a signature, an exported program."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.values import Model, Signature, TensorSpec

Sizes = Mapping[str, int]
Call = Callable[[Mapping[str, Any]], dict[str, Any]]

FOREIGN_ERRORS = (ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, NameError,
                  OSError, RuntimeError, SyntaxError, TypeError, ValueError)  # fmt: skip
"""What the user's own modules and factories may raise; told to them in one line."""

FORMATS = ("torch", "torch-export", "huggingface")
"""The formats whose live models are PyTorch modules or exported programs."""

BATCH = "batch"
_PROBES = ((2, 3), (5, 7), (11, 13), (17, 19))


def import_torch(purpose: str) -> Any:
    """Return the module `torch`, or raise `MissingExtra` that names the command that installs it."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "torch", purpose) from error
    return torch


def first_line(error: BaseException) -> str:
    """Return the first telling line of an error with its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's advice about optional packages and deprecations off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "torch._export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def examples(inputs: Sequence[TensorSpec], sizes: Sizes) -> dict[str, Any]:
    """Return zeros for every input, free dimensions at the given sizes (2 where none is given)."""
    torch = import_torch("tracing a PyTorch model")
    made = {}
    for spec in inputs:
        shape = [size if isinstance(size, int) else sizes.get(size, 2) for size in spec.shape]
        made[spec.name] = torch.zeros(shape, dtype=getattr(torch, spec.dtype))
    return made


def named_outputs(result: Any, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the tensors of a module's result by name.

    A mapping gives its keys, a single tensor is "output", several are "output_0", "output_1" …; what is not a
    tensor is left out. `names` takes their place when given.
    """
    found = dict(_tensors(result, ""))
    if names and len(names) != len(found):
        raise BadInput(f"output_names gives {len(names)} names, the module returns {len(found)} tensors: {list(found)}")
    if list(found) == ["output_0"]:
        found = {"output": found["output_0"]}
    return dict(zip(names, found.values(), strict=True)) if names else found


def _tensors(result: Any, name: str) -> Iterator[tuple[str, Any]]:
    torch = import_torch("running a PyTorch model")
    if isinstance(result, torch.Tensor):
        yield name or "output", result
    elif isinstance(result, Mapping):
        for key, value in result.items():
            yield from _tensors(value, f"{name}_{key}" if name else str(key))
    elif isinstance(result, tuple | list):
        for number, value in enumerate(result):
            yield from _tensors(value, f"{name or 'output'}_{number}")


def caller(live: Any, signature: Signature, prepare: Callable[[Any], Any] = lambda module: module) -> Call:
    """Return a function from tensors by input name to tensors by output name.

    Args:
        live: A module, called by keyword, or an exported program, called as it was exported.
        signature: Names in the order of the model.
        prepare: Applied to the module before it is called, for instance `torch.compile`.
    """
    torch = import_torch("running a PyTorch model")
    names = [spec.name for spec in signature.outputs]
    if isinstance(live, torch.nn.Module):
        module = prepare(live)
        return lambda inputs: named_outputs(module(**inputs), names)
    unflatten = torch.utils._pytree.tree_unflatten
    module = prepare(live.module())
    structure, order = live.call_spec.in_spec, [spec.name for spec in signature.inputs]

    def call(inputs: Mapping[str, Any]) -> dict[str, Any]:
        args, kwargs = unflatten([inputs[name] for name in order], structure)
        return named_outputs(module(*args, **kwargs), names)

    return call


def forward_inputs(module: Any) -> tuple[list[str], list[str]]:
    """Return the names of the inputs that `forward` takes, and of those it needs."""
    takes = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    return [parameter.name for parameter in takes], [p.name for p in takes if p.default is p.empty]


def describe(module: Any, inputs: Sequence[TensorSpec], output_names: Sequence[str] = ()) -> Signature:
    """Return the signature of a module, found by running it on zeros at two sizes of every free dimension.

    Where no dimension is free yet, the first axis is freed as "batch" if the outputs grow with it and with nothing
    else; otherwise the sizes stay fixed. An output dimension that grows with a free one takes its name.
    """
    if any(isinstance(size, str) for spec in inputs for size in spec.shape):
        return _probe(module, inputs, output_names)
    freed = [replace(spec, shape=(BATCH, *spec.shape[1:])) if spec.shape else spec for spec in inputs]
    with contextlib.suppress(*FOREIGN_ERRORS, BadInput):
        found = _probe(module, freed, output_names)
        if all(spec.shape[:1] == (BATCH,) for spec in found.outputs):
            return found
    return _probe(module, inputs, output_names)


def _probe(module: Any, inputs: Sequence[TensorSpec], output_names: Sequence[str]) -> Signature:
    torch = import_torch("opening a PyTorch model")
    free = sorted(
        {size for spec in inputs for size in spec.shape if isinstance(size, str)}, key=lambda n: (n != BATCH, n)
    )
    if len(free) > len(_PROBES):
        raise BadInput(
            f"more than {len(_PROBES)} free dimensions ({', '.join(free)}) can't be told apart; fix some of them"
        )
    probes = dict(zip(free, _PROBES, strict=False))
    runs = []
    with torch.inference_mode():
        for number in (0, 1):
            given = examples(inputs, {name: pair[number] for name, pair in probes.items()})
            runs.append(named_outputs(module(**given), output_names))
    names = {pair: name for name, pair in probes.items()}
    outputs = [
        TensorSpec(
            name=name,
            dtype=str(first.dtype).removeprefix("torch.").replace("bfloat16", "float32"),
            shape=tuple(
                a if a == b else names.get((a, b), "?") for a, b in zip(first.shape, second.shape, strict=True)
            ),
        )
        for (name, first), second in zip(runs[0].items(), runs[1].values(), strict=True)
    ]
    if not outputs:
        raise BadInput("the module returns no tensor; return a tensor, a tuple of tensors or a dictionary of them")
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs))


def load_live(model: Model) -> Any:
    """Return the live module or exported program of a model of any PyTorch format."""
    from trimtab.core import plugins

    return plugins.make("formats", model.format).load(model)


def export(live: Any, signature: Signature, batch: int | None = None) -> Any:
    """Return the program that torch.export makes of a module.

    Args:
        live: The module, in evaluation mode, called by keyword; or a program, called as it was exported.
        signature: Its inputs; free dimensions are exported free.
        batch: Fixes the batch at this size.

    Raises:
        BadInput: It can't be traced; the message holds PyTorch's reason.
    """
    torch = import_torch("exporting a PyTorch model")
    given = examples(signature.inputs, {BATCH: batch or 2, **_sizes_beside_batch(signature)})
    free = {
        spec.name: {
            axis: torch.export.Dim.AUTO
            for axis, size in enumerate(spec.shape)
            if isinstance(size, str) and not (batch is not None and size == BATCH)
        }
        for spec in signature.inputs
    }
    module, args, kwargs = live, (), given
    if not isinstance(live, torch.nn.Module):
        args, kwargs = torch.utils._pytree.tree_unflatten(list(given.values()), live.call_spec.in_spec)
        module = live.module()
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(module, tuple(args), kwargs=kwargs, dynamic_shapes=free)
    except FOREIGN_ERRORS as error:
        raise BadInput(
            f"torch.export can't trace this module ({first_line(error)}); "
            "avoid control flow that depends on values, or fix the sizes"
        ) from error
    fixed = _specialized(program, free)
    if fixed:
        raise BadInput(f"torch.export fixed the size of {', '.join(fixed)}: the module's code depends on it")
    return program


def _sizes_beside_batch(signature: Signature) -> dict[str, int]:
    names = sorted({size for spec in signature.inputs for size in spec.shape if isinstance(size, str)} - {BATCH})
    return {name: pair[0] for name, pair in zip(names, _PROBES[1:] * len(names), strict=False)}


def _specialized(program: Any, free: Mapping[str, Mapping[int, Any]]) -> list[str]:
    """Return the axes that were to be free but were fixed by the tracer."""
    return [
        f"{name} axis {axis}"
        for name, shape in _program_inputs(program).items()
        for axis in free.get(name, {})
        if isinstance(shape[1][axis], int)
    ]


def _program_inputs(program: Any) -> dict[str, tuple[str, tuple[int | str, ...]]]:
    """Return the user inputs of an exported program: name to dtype and shape; free dimensions are symbols."""
    wanted = set(program.graph_signature.user_inputs)
    return {
        node.name: _dtype_and_shape(node.meta["val"])
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in wanted and hasattr(node.meta.get("val"), "dtype")
    }


def _dtype_and_shape(value: Any) -> tuple[str, tuple[int | str, ...]]:
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return str(value.dtype).removeprefix("torch."), shape


def program_signature(program: Any, inputs: Sequence[TensorSpec] | None = None, names: Sequence[str] = ()) -> Signature:
    """Return the signature of an exported program.

    Args:
        program: The exported program.
        inputs: The inputs it was exported with, when known: their names for free dimensions are kept. Without them a
            free first axis is called "batch" and other free ones by their symbols.
        names: Names for the outputs.
    """
    found = _program_inputs(program)
    if not found:
        raise BadInput("this program takes no tensors as inputs, so there is nothing to feed")
    called: dict[str, str] = {}
    for position, (_, shape) in enumerate(found.values()):
        for axis, size in enumerate(shape):
            if isinstance(size, str):
                given = inputs[position].shape[axis] if inputs else (BATCH if axis == 0 else size)
                called.setdefault(size, str(given))
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    given_names = [spec.name for spec in inputs] if inputs else list(found)
    leaves = [values[name] for name in program.graph_signature.user_outputs if name in values]
    result = import_torch("opening a PyTorch program").utils._pytree.tree_unflatten(leaves, program.call_spec.out_spec)
    outputs = {name: _dtype_and_shape(value) for name, value in named_outputs(result, names).items()}
    return Signature(
        inputs=tuple(_spec(name, *found[key], called) for name, key in zip(given_names, found, strict=True)),
        outputs=tuple(
            _spec(name, dtype.replace("bfloat16", "float32"), shape, called) for name, (dtype, shape) in outputs.items()
        ),
    )


def _spec(name: str, dtype: str, shape: tuple[int | str, ...], called: Mapping[str, str]) -> TensorSpec:
    named = tuple(called.get(size, "?") if isinstance(size, str) else size for size in shape)
    return TensorSpec(name=name, dtype=dtype, shape=named)
