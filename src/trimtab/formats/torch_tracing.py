"""How a PyTorch module is called: example inputs, names of outputs, a signature, an exported program."""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.values import Model, Signature, TensorSpec

Call = Callable[[Mapping[str, Any]], dict[str, Any]]
Run = Callable[[Any, Sequence[Mapping[str, Any]]], list[Any]]

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
def quiet(*names: str) -> Iterator[None]:
    """Keep PyTorch's advice and warnings, and what other loggers say, off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "torch._export", *names)]
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


def examples(inputs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return zeros for every input, free dimensions at the given sizes (2 where none is given)."""
    torch = import_torch("tracing a PyTorch model")
    made = {}
    for spec in inputs:
        shape = [size if isinstance(size, int) else sizes.get(size, 2) for size in spec.shape]
        made[spec.name] = torch.zeros(shape, dtype=getattr(torch, spec.dtype))
    return made


def random_inputs(inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Return inputs of the sizes that `describe` tries first: normal numbers where they are floating, else zeros."""
    torch = import_torch("running a PyTorch model")
    sizes = {name: pair[0] for name, pair in zip(_free(inputs), _PROBES, strict=False)}
    draw = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(zeros.shape, generator=draw).to(zeros.dtype) if zeros.is_floating_point() else zeros
        for name, zeros in examples(inputs, sizes).items()
    }


@contextlib.contextmanager
def evaluated(module: Any) -> Iterator[None]:
    """Keep a module in evaluation mode for the time of the block; parts may be frozen while the whole trains."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


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


def describe(
    module: Any, inputs: Sequence[TensorSpec], output_names: Sequence[str] = (), *, compute: bool = True
) -> Signature:
    """Return the signature of a module, found by running it on zeros at two sizes of every free dimension.

    Where no dimension is free yet, the first axis is freed as "batch" if the outputs grow with it and with nothing
    else; otherwise the sizes stay fixed. An output dimension that grows with a free one takes its name. Without
    `compute` a copy of the module, of tensors without content, is run where that is possible: only shapes are told.
    """
    probe = partial(_probe, module, output_names=output_names, run=_run if compute else _trace)
    if any(isinstance(size, str) for spec in inputs for size in spec.shape):
        return probe(inputs)
    freed = [replace(spec, shape=(BATCH, *spec.shape[1:])) if spec.shape else spec for spec in inputs]
    with contextlib.suppress(*FOREIGN_ERRORS, BadInput):
        found = probe(freed)
        if all(spec.shape[:1] == (BATCH,) for spec in found.outputs):
            return found
    return probe(inputs)


def _run(module: Any, given: Sequence[Mapping[str, Any]]) -> list[Any]:
    torch = import_torch("opening a PyTorch model")
    with torch.inference_mode():
        return [module(**each) for each in given]


def _trace(module: Any, given: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return results that have a shape and a type but no content; a module that looks at contents is run after all.

    Not for a module that is exported in this process: what its code keeps beside the module would be without content.
    """
    torch = import_torch("opening a PyTorch model")
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

    with contextlib.suppress(*FOREIGN_ERRORS), quiet(), torch.no_grad():
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with FakeCopyMode(fake):
            copied = copy.deepcopy(module)
        with fake:
            return [copied(**{name: fake.from_tensor(value) for name, value in each.items()}) for each in given]
    return _run(module, given)


def _probe(module: Any, inputs: Sequence[TensorSpec], *, output_names: Sequence[str], run: Run) -> Signature:
    free = _free(inputs)
    if len(free) > len(_PROBES):
        raise BadInput(f"more than {len(_PROBES)} free dimensions ({', '.join(free)}) can't be told apart; fix some")
    probes = dict(zip(free, _PROBES, strict=False))
    given = [examples(inputs, {name: pair[number] for name, pair in probes.items()}) for number in (0, 1)]
    runs = [named_outputs(result, output_names) for result in run(module, given)]
    names = {pair: name for name, pair in probes.items()}
    outputs = []
    for (name, first), second in zip(runs[0].items(), runs[1].values(), strict=True):
        sizes = zip(first.shape, second.shape, strict=True)
        shape = tuple(size if size == other else names.get((size, other), "?") for size, other in sizes)
        outputs.append(replace(_answer(name, first), shape=shape))
    if not outputs:
        raise BadInput("the module returns no tensor; return a tensor, a tuple of tensors or a dictionary of them")
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs))


def _free(inputs: Sequence[TensorSpec]) -> list[str]:
    """Return the names of the free dimensions, the batch first."""
    names = {size for spec in inputs for size in spec.shape if isinstance(size, str)}
    return sorted(names, key=lambda name: (name != BATCH, name))


def _spec(name: str, value: Any) -> TensorSpec:
    """Return the specification of a tensor; a symbol that the tracer has fixed is the size it was fixed at."""
    sizes = (str(size) for size in value.shape)
    shape = tuple(int(size) if size.isdigit() else size for size in sizes)
    return TensorSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), shape=shape)


def _answer(name: str, value: Any) -> TensorSpec:
    """Return the specification of an output as it leaves the runtime: numpy has no bfloat16."""
    spec = _spec(name, value)
    return replace(spec, dtype=spec.dtype.replace("bfloat16", "float32"))


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
    others = zip(_free(signature.inputs), itertools.cycle(_PROBES[1:]), strict=False)
    given = examples(signature.inputs, {name: pair[0] for name, pair in others} | {BATCH: batch or 2})
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
    fixed = [
        f"{spec.name} axis {axis}"
        for spec in _program_inputs(program)
        for axis in free.get(spec.name, {})
        if isinstance(spec.shape[axis], int)
    ]
    if fixed:
        raise BadInput(f"torch.export fixed the size of {', '.join(fixed)}: the module's code depends on it")
    return program


def _program_inputs(program: Any) -> list[TensorSpec]:
    """Return the user inputs of an exported program; free dimensions are symbols."""
    wanted = set(program.graph_signature.user_inputs)
    return [
        _spec(node.name, node.meta["val"])
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in wanted and hasattr(node.meta.get("val"), "dtype")
    ]


def program_signature(program: Any, inputs: Sequence[TensorSpec] = (), names: Sequence[str] = ()) -> Signature:
    """Return the signature of an exported program.

    Args:
        program: The exported program.
        inputs: The inputs it was exported with, when known: their names for free dimensions are kept. Without them a
            free first axis is called "batch" and other free ones by their symbols.
        names: Names for the outputs.

    Raises:
        BadInput: The program takes no tensors.
    """
    found = _program_inputs(program)
    if not found:
        raise BadInput("this program takes no tensors as inputs, so there is nothing to feed")
    called: dict[int | str, int | str] = {}
    for spec, given in zip(found, inputs or found, strict=True):
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str):
                called.setdefault(size, BATCH if axis == 0 and not inputs else given.shape[axis])
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    leaves = [values[name] for name in program.graph_signature.user_outputs if name in values]
    result = import_torch("opening a PyTorch program").utils._pytree.tree_unflatten(leaves, program.call_spec.out_spec)
    outputs = [_answer(name, value) for name, value in named_outputs(result, names).items()]

    def named(spec: TensorSpec, name: str) -> TensorSpec:
        sizes = (size if isinstance(size, int) else called.get(size, "?") for size in spec.shape)
        return replace(spec, name=name, shape=tuple(sizes))

    return Signature(
        inputs=tuple(named(spec, given.name) for spec, given in zip(found, inputs or found, strict=True)),
        outputs=tuple(named(spec, spec.name) for spec in outputs),
    )
