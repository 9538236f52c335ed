"""Takes data from Python: arrays, a dictionary of arrays, (inputs, labels), a torch Dataset or DataLoader.

Torch is never imported: a tensor is anything that can `detach` and become a numpy array, a data set anything with
`__len__` and `__getitem__`, a loader anything iterable with a `dataset` and a `batch_size`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, TrimtabError
from trimtab.core.files import digest_files
from trimtab.core.protocols import Array
from trimtab.data.npz import from_arrays
from trimtab.data.table import LABELS, Table, Wanted

_REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


def is_reference(source: str) -> bool:
    """Say whether the text reads like `package.module:function`."""
    return _REFERENCE.match(source) is not None


def find_function(reference: str) -> Callable[..., Any]:
    """Import and return `package.module:function`; modules in the working folder are found too."""
    module, _, name = reference.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        held = importlib.import_module(module)
    except ImportError as error:
        raise BadInput(f"{reference}: the module {module} can't be imported ({error}); run from its folder") from error
    except Exception as error:  # a user's module may raise anything, and the user must see it
        raise BadInput(f"{reference}: the module {module} failed: {_told(error)}; mend it and run again") from error
    finally:
        sys.path.remove(here)
    if not hasattr(held, name):
        raise BadInput(f"{reference}: the module {module} has no {name!r}; check the name")
    function = getattr(held, name)
    if not callable(function):
        raise BadInput(f"{reference} is not a function; name one of that module")
    return function  # type: ignore[no-any-return]  # checked just above


def source_digest(reference: str) -> str:
    """Return a digest of the files behind `package.module:function`: the module named, and where the function is from.

    Of whole files, because a function is what it calls as well. Code that was typed in has no file, and no digest.
    """
    function = find_function(reference)
    modules = (reference.partition(":")[0], getattr(inspect.unwrap(function), "__module__", None))
    files = (getattr(sys.modules.get(name or ""), "__file__", None) for name in dict.fromkeys(modules))
    return digest_files([Path(file) for file in files if file is not None and Path(file).is_file()])


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a user's function returns; whatever it raises becomes one clear line."""
    name = getattr(function, "__name__", repr(function))
    try:
        return function(*arguments)
    except TrimtabError:
        raise
    except Exception as error:  # a user's function may raise anything, and the user must see it
        raise BadInput(f"the function {name} failed: {_told(error)}; mend it and run again") from error


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def from_python(source: Any, wanted: Wanted, name: str) -> Table:
    """Return the data that a Python object holds as a table; `name` says in errors where it came from."""
    return _joined(list(parts(source, wanted, name)), wanted, name)


def parts(source: Any, wanted: Wanted, name: str) -> Iterator[dict[str, Array]]:
    """Yield what a Python object holds as arrays by name: all of it, or batch by batch, or item by item."""
    if isinstance(source, Mapping):
        yield {key: as_array(value) for key, value in source.items()}
    elif _is_tensor(source) or (isinstance(source, list) and not (source and isinstance(source[0], tuple | dict))):
        yield {"inputs": as_array(source)}
    elif isinstance(source, tuple) and len(source) == 2:
        yield from parts(_with_labels(*source, wanted), wanted, name)
    elif hasattr(source, "dataset") and hasattr(source, "batch_size") and isinstance(source, Iterable):
        yield from _batches(source, wanted, name)
    elif hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, tuple):
        for row in range(len(source)):
            item = _named(source[row], wanted, name)
            yield {key: as_array(value)[None] for key, value in item.items()}
    else:
        raise BadInput(
            f"{name} is a {type(source).__name__}; give an array, a dictionary of arrays, (inputs, labels), "
            "or a torch Dataset or DataLoader"
        )


def as_array(value: Any) -> Array:
    """Return a tensor or anything array-like as a numpy array."""
    try:
        array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except TypeError as error:
        raise BadInput(f"a tensor can't become an array ({error}); turn it into a type that numpy has") from error
    except ValueError as error:
        raise BadInput(
            f"the items differ in shape ({error}); make them alike, or give files and a resize step"
        ) from error
    return array.astype(object) if array.dtype.kind == "U" else array


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "detach")


def _batches(source: Any, wanted: Wanted, name: str) -> Iterator[dict[str, Array]]:
    if type(getattr(source, "sampler", None)).__name__ == "RandomSampler":
        raise BadInput(
            f"{name} is a DataLoader that shuffles; make it with shuffle=False so that items keep their numbers"
        )
    for batch in source:
        yield {key: as_array(value) for key, value in _named(batch, wanted, name).items()}


def _named(item: Any, wanted: Wanted, name: str) -> dict[str, Any]:
    """Return one item (or batch) as its inputs and its label by name."""
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, tuple | list) and len(item) == 2:
        return _with_labels(item[0], item[1], wanted)
    if isinstance(item, tuple | list) and len(item) == 1:
        return {"inputs": item[0]}
    if _is_tensor(item) or np.isscalar(item):
        return {"inputs": item}
    raise BadInput(f"{name}: an item is a {type(item).__name__}; give (input, label), a dictionary, or a tensor")


def _with_labels(inputs: Any, labels: Any, wanted: Wanted) -> dict[str, Any]:
    """Return inputs and labels (None for none) by name; that of the labels is one that no input bears."""
    held = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    free = next(name for name in LABELS if name not in wanted.names)
    return held if labels is None else {**held, free: labels}


def _joined(batches: list[dict[str, Array]], wanted: Wanted, name: str) -> Table:
    if not batches:
        raise BadInput(f"{name} holds no items; give data with at least a few hundred")
    if any(batch.keys() != batches[0].keys() for batch in batches):
        raise BadInput(
            f"{name}: its items hold different things ({', '.join(batches[0])} in the first); make them alike"
        )
    try:
        joined = (
            batches[0]
            if len(batches) == 1
            else {key: np.concatenate([each[key] for each in batches]) for key in batches[0]}
        )
    except ValueError as error:
        raise BadInput(f"{name}: its items differ in shape ({error}); make them alike") from error
    return from_arrays(joined, wanted, name)
