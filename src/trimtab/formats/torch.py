"""PyTorch modules: a factory (`package.module:function` or `file.py:function`) and its weights, kept as a folder.

The folder holds `module.json` (how to build the module, what was changed since, and its signature) and
`weights.safetensors`. Reading it runs the code of the factory, and nothing that is in the folder.
The factory's module may say more in optional attributes: `example_inputs` (tensors by input name, or a function that
returns them), `dynamic_axes` (free dimensions, such as {"tokens": {0: "batch", 1: "sequence"}}) and `output_names`.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput, Refused, TrimtabError, Unsafe
from trimtab.core.files import digest_files, disk_errors, make_folder, whole_folder, write_text
from trimtab.core.protocols import Opening
from trimtab.core.values import Contents, Model, Signature, TensorSpec, Work, Workload, content_digest
from trimtab.formats import torch_macs
from trimtab.formats.states import States, with_states
from trimtab.formats.torch_changes import changes, completed
from trimtab.formats.torch_export import module_to_model
from trimtab.formats.torch_structure import Arguments, Edit
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, describe, evaluated, first_line, forward_inputs, import_torch
from trimtab.formats.torch_weights import Aliases, few, load_weights, read_safetensors, unshared

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*|.+\.py:[A-Za-z_]\w*")
_RECIPE = "module.json"
_WEIGHTS = "weights.safetensors"
_HARMLESS = ("trimtab.students.networks:build",)  # factories that nobody has to be trusted for: plain sizes, no code
_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to build a module again.

    `factory` is `package.module:function`, found in the folder `search_path`, or `/path/file.py:function`, called with
    `arguments`. `edits` is what was changed since in what it builds. `aliases` are tensors that share the memory of
    another one; `source` is the digest of the code of the factory and of every layer it builds.
    """

    factory: str
    search_path: str
    arguments: Arguments = ()
    edits: tuple[Edit, ...] = ()
    aliases: Aliases = ()
    source: str
    signature: Signature


class TorchFormat:
    """Modules built by a factory; loading one runs the factory's code."""

    name = "torch"
    runs_code = True
    reads = ("weights", "states", "example")

    def claims(self, source: str) -> bool:
        """Claim `package.module:function`, `file.py:function`, folders written here, and bare weights (to refuse)."""
        bare = source.endswith(_CHECKPOINTS) and Path(source).is_file()
        return bool(_FACTORY.fullmatch(source)) or (Path(source) / _RECIPE).is_file() or bare

    def open(self, source: str, opening: Opening) -> Model:
        """Build the module, load its weights, and write both to a folder inside `opening.folder`.

        Raises:
            BadInput: There is no such factory, it fails, the weights don't fit, or the inputs can't be known.
            Unsafe: The weights are a pickle that holds more than tensors.
        """
        if (Path(source) / _RECIPE).is_file():
            return self._reopen(Path(source), opening)
        if not _FACTORY.fullmatch(source):
            raise Unsafe(
                f"{source} holds weights or a pickled module, which can't run without the code that builds the module; "
                f"give its factory: package.module:function --weights {source}"
            )
        code, module = _build(source)
        if opening.weights is not None:
            load_weights(module, opening.weights, opening.trust_pickle)
        inputs = _inputs(module, code, opening.example, source)
        signature = _described(module, inputs, tuple(getattr(code, "output_names", ())), source, compute=False)
        return _save(module, source, code, with_states(signature, opening.states), opening.folder)

    def load(self, model: Model) -> Any:
        """Return the module with its weights, in evaluation mode; refuse when its code has changed since."""
        recipe = _read(model.path)
        tensors = read_safetensors(model.path / _WEIGHTS)
        source = str(model.path / _WEIGHTS)
        return completed(_from_factory(recipe), recipe.edits, tensors, recipe.aliases, source)

    def contents(self, model: Model) -> Contents:
        """Return the kinds of layers and the parameters of the module, tied ones once."""
        return torch_macs.contents(model, (model.path / _RECIPE, model.path / _WEIGHTS))

    def work(self, model: Model, workload: Workload) -> Work:
        """Return the multiply-accumulates of one call, counted on the graph that torch.export makes."""
        return torch_macs.work(model, workload)

    def _reopen(self, path: Path, opening: Opening) -> Model:
        path = path.absolute()
        recipe = _read(path)
        if opening.weights or opening.states or opening.example:
            raise BadInput(f"{path} holds its own weights, states and inputs: leave --weights, --state and --input out")
        if not opening.trust_pickle and recipe.factory not in _HARMLESS:
            raise Unsafe(
                f"{path} runs code when it is loaded ({recipe.factory}); open the factory instead, "
                "or add --trust-pickle if you trust who made it"
            )
        return Model(format=self.name, path=path, digest=_digest(path, recipe), signature=recipe.signature)


def save_module(
    module: Any,
    example_inputs: Any,
    folder: Path,
    *,
    output_names: Sequence[str] = (),
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
    states: States = (),
) -> Model:
    """Save the program that torch.export makes of a live `nn.Module` to the folder and return it as a model.

    Args:
        module: The module; it is switched to evaluation mode while it is saved.
        example_inputs: A tensor or array, a sequence in the order of `forward`, or a mapping by name.
        folder: Where the model's files go.
        output_names: Names for the outputs, in order.
        dynamic_axes: Free dimensions by input name and axis; by default the batch, where the module allows it.
        states: Pairs of a state input and the output that it is fed with.

    Raises:
        BadInput: The module can't run on the example or can't be traced.
    """
    torch = import_torch("saving a PyTorch module")
    if not isinstance(module, torch.nn.Module):
        raise BadInput(f"this is a {type(module).__name__}, not a torch.nn.Module")
    with evaluated(module):
        inputs = _freed(_specs(module, example_inputs), dynamic_axes or {})
        signature = with_states(_described(module, inputs, output_names, "the module", compute=True), states)
        model = module_to_model(module, signature, folder)
        return replace(model, signature=with_states(model.signature, states))


def save_changed(model: Model, module: Any, folder: Path) -> Model:
    """Save a module that was loaded from a model and changed since, to a folder inside `folder`; return it as a model.

    Weights may be others, layers may have been resized, replaced by layers of torch.nn, added or removed, and plain
    attributes set. The inputs and outputs stay those of the model. The module is left as it is.

    Raises:
        Refused: The model is of another format, or the module can't be rebuilt from what the factory builds.
        BadInput: The factory's code has changed since the model was opened.
    """
    if model.format != TorchFormat.name:
        raise Refused(
            f"a changed module is kept with the factory that built it, which a {model.format} model doesn't have; "
            "open the factory instead: package.module:function --weights model.safetensors"
        )
    torch, recipe = import_torch("saving a PyTorch module"), _read(model.path)
    with torch.random.fork_rng(devices=()):  # the factory draws weights; a training that goes on must not notice
        edits, tensors, aliases = changes(_from_factory(recipe), module, recipe.signature)
    return _write(replace(recipe, edits=edits, aliases=aliases), tensors, folder)


def save_built(factory: str, arguments: Arguments, module: Any, signature: Signature, folder: Path) -> Model:
    """Save what a factory of an installed package has built with plain arguments, whatever its weights are now.

    Args:
        factory: `package.module:function`, which is called with the arguments, by name, when the model is loaded.
        arguments: Numbers, texts and tuples of them.
        module: What the factory has built.
        signature: What the module takes and answers.
        folder: Where a folder for the model is made.
    """
    tensors, aliases = unshared(module)
    recipe = Recipe(
        factory=factory,
        search_path="",
        arguments=arguments,
        aliases=aliases,
        source=_source_digest(module, factory, ""),
        signature=signature,
    )
    return _write(recipe, tensors, folder)


def _described(
    module: Any, inputs: Sequence[TensorSpec], output_names: Sequence[str], what: str, *, compute: bool
) -> Signature:
    try:
        return describe(module, inputs, output_names, compute=compute)
    except FOREIGN_ERRORS as error:
        raise BadInput(f"{what} can't run on its example inputs {_typed(inputs)}: {first_line(error)}") from error


def _build(factory: str, search_path: str = "", arguments: Arguments = ()) -> tuple[ModuleType, Any]:
    """Return the factory's Python module and the module that it builds, in evaluation mode."""
    torch = import_torch("building a PyTorch model")
    code = _import(factory, search_path)
    name = factory.rpartition(":")[2]
    make = getattr(code, name, None)
    if make is None:
        public = [word for word, value in vars(code).items() if callable(value) and not word.startswith("_")]
        raise BadInput(f"{code.__name__} has no {name!r}; it has: {few(public) or 'nothing to call'}")
    try:
        live = isinstance(make, torch.nn.Module) or not callable(make)
        module = (
            copy.deepcopy(make) if live else make(**dict(arguments))
        )  # the one in the file stays as it is, whatever is done to it
    except TrimtabError:
        raise
    except (Exception, SystemExit) as error:  # whatever their code raises is told in one line
        how = f"it was built with {dict(arguments)}" if arguments else "it must build the module without arguments"
        raise BadInput(f"{factory} failed ({first_line(error)}); {how}") from error
    if not isinstance(module, torch.nn.Module):
        raise BadInput(f"{factory} gave a {type(module).__name__}, not a torch.nn.Module")
    return code, module.eval()


def _from_factory(recipe: Recipe) -> Any:
    """Return the module as its factory builds it; refuse when its code has changed since the model was opened."""
    _, module = _build(recipe.factory, recipe.search_path, recipe.arguments)
    if _source_digest(module, recipe.factory, recipe.search_path) != recipe.source:
        raise BadInput(f"the code of {recipe.factory} has changed since the model was opened; open it again")
    return module


def _import(factory: str, search_path: str) -> ModuleType:
    where = factory.rpartition(":")[0]
    try:
        if where.endswith(".py"):
            return _import_file(Path(where))
        for folder in filter(None, (search_path, str(Path.cwd()))):
            if importlib.util.find_spec(where.partition(".")[0]) is None and folder not in sys.path:
                sys.path.append(folder)
                importlib.invalidate_caches()
        return importlib.import_module(where)
    except TrimtabError:
        raise
    except (Exception, SystemExit) as error:  # whatever their code raises is told in one line
        raise BadInput(
            f"can't import {where} ({first_line(error)}); run from its folder, or give file.py:function"
        ) from error


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name of its own: two files called model.py don't meet, nor do two states of one file."""
    path = path.resolve()
    if not path.is_file():
        raise BadInput(f"there is no file {path}; check the path")
    name = f"{path.stem}_{content_digest(str(path), digest_files([path]))[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} is not a Python file")
    code = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for what the file imports from beside it
    sys.modules[name] = code
    try:
        spec.loader.exec_module(code)
    except BaseException:
        del sys.modules[name]
        raise
    return code


def _found_in(code: ModuleType) -> str:
    """Return the folder that must be on the path to import the module."""
    file = Path(code.__file__ or ".").resolve()
    levels = code.__name__.count(".") + (file.name == "__init__.py")
    return str(file.parents[levels])


def _source_digest(module: Any, factory: str, search_path: str) -> str:
    """Return the digest of the source files of the factory and of every layer's class, PyTorch's own left out.

    It depends neither on where the files lie nor on their order.
    """
    names = {type(layer).__module__ for layer in module.modules()}
    codes = {sys.modules[name] for name in names if not name.startswith("torch.") and name in sys.modules}
    codes.add(_import(factory, search_path))
    files = {Path(file) for file in (getattr(code, "__file__", None) for code in codes) if file}
    return content_digest(*sorted(digest_files([file]) for file in files if file.is_file()))


def _inputs(
    module: Any, code: ModuleType, example: Sequence[tuple[str, tuple[int, ...], str]], source: str
) -> tuple[TensorSpec, ...]:
    """Return the inputs by what the user typed, else by the factory's module; free axes are named."""
    takes, needs = forward_inputs(module)
    axes = getattr(code, "dynamic_axes", {})
    if example:
        names = [name for name, _, _ in example]
        if set(names) - set(takes) or set(needs) - set(names):
            raise BadInput(f"{source} takes the inputs {', '.join(takes)}; --input gives {', '.join(names)}")
        return _freed([TensorSpec(name=name, dtype=dtype, shape=shape) for name, shape, dtype in example], axes)
    given = getattr(code, "example_inputs", None)
    if given is None:
        typed = " ".join(f"--input {name}:float32[1,1,28,28]" for name in needs or takes or ["input"])
        raise BadInput(
            f"the shapes of the inputs of {source} are not known; add {typed} with your own type and shape, "
            "or define example_inputs beside the factory"
        )
    return _freed(_specs(module, given() if callable(given) else given), axes)


def _specs(module: Any, given: Any) -> list[TensorSpec]:
    """Return example tensors or arrays as specifications with fixed sizes."""
    torch = import_torch("opening a PyTorch model")
    takes, _ = forward_inputs(module)
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        values = given if isinstance(given, tuple | list) else (given,)
        if len(values) > len(takes):
            raise BadInput(f"{len(values)} example inputs are given, the module takes {len(takes)}: {', '.join(takes)}")
        named = dict(zip(takes, values, strict=False))
    specs = []
    for name, value in named.items():
        if not isinstance(value, torch.Tensor | np.ndarray):
            raise BadInput(f"example input {name!r} is a {type(value).__name__}, not a tensor or an array")
        specs.append(TensorSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), shape=tuple(value.shape)))
    return specs


def _freed(specs: Sequence[TensorSpec], axes: Mapping[str, Mapping[int, str]]) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, shape=tuple(axes.get(spec.name, {}).get(axis, size) for axis, size in enumerate(spec.shape)))
        for spec in specs
    )


def _typed(inputs: Sequence[TensorSpec]) -> str:
    return " ".join(f"{spec.name}:{spec.dtype}[{','.join(map(str, spec.shape))}]" for spec in inputs)


def _save(module: Any, factory: str, code: ModuleType, signature: Signature, folder: Path) -> Model:
    where, _, name = factory.rpartition(":")
    if where.endswith(".py"):
        factory, search_path = f"{Path(where).resolve()}:{name}", ""
    else:
        search_path = _found_in(code)
    tensors, aliases = unshared(module)
    source = _source_digest(module, factory, search_path)
    recipe = Recipe(factory=factory, search_path=search_path, aliases=aliases, source=source, signature=signature)
    return _write(recipe, tensors, folder)


def _write(recipe: Recipe, tensors: Mapping[str, Any], folder: Path) -> Model:
    """Write recipe and weights to a folder inside `folder`, named by their content, and return them as a model."""
    from safetensors.torch import save_file

    folder = make_folder(folder.absolute())
    with tempfile.TemporaryDirectory(dir=folder) as scratch, disk_errors(folder):
        written = Path(scratch)
        save_file(tensors, written / _WEIGHTS)
        write_text(written / _RECIPE, dumps(recipe, indent=1))
        digest = _digest(written, recipe)
        final = folder / f"torch-{digest[:12]}"
        with whole_folder(final) as place:
            for file in written.iterdir():
                file.replace(place / file.name)
    return Model(format=TorchFormat.name, path=final, digest=digest, signature=recipe.signature)


def _read(path: Path) -> Recipe:
    try:
        recipe = loads(Recipe, (path / _RECIPE).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a PyTorch model as trimtab writes it; open its factory again") from error
    if not (path / _WEIGHTS).is_file():
        raise BadInput(f"{path} has no {_WEIGHTS}; open its factory again")
    return recipe


def _digest(path: Path, recipe: Recipe) -> str:
    name = recipe.factory.rpartition(":")[2]
    more = [dumps(each) for each in (recipe.arguments, recipe.edits) if each]
    return content_digest(digest_files([path / _WEIGHTS]), recipe.source, name, recipe.aliases, *more)
