"""Low-rank factorization: a layer becomes a chain of thinner ones that computes nearly the same with fewer products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from trimtab.core.errors import BadInput, MissingExtra, NothingToGain
from trimtab.core.protocols import Array, Context, Range
from trimtab.core.values import Step, Task, Variant
from trimtab.formats.torch import save_changed
from trimtab.formats.torch_tracing import import_torch, load_live, quiet
from trimtab.techniques.chains import chain_of, moving_like, put, replaceable, replacements, weight_of
from trimtab.techniques.int8 import SEPARATOR, kept, options_of
from trimtab.techniques.refit import chained, refit
from trimtab.techniques.structure import refusal

LAYERS = ("all", "linear", "conv")
METHODS = ("tucker", "cp")
_MULTIPLE = 8  # what vector registers hold of a rank
_ROUNDS = 100  # of alternating least squares


@dataclass(frozen=True, slots=True, kw_only=True)
class Factorize:
    """Replaces layers of a PyTorch module by chains of thinner ones where that saves multiply-accumulates.

    `energy` is the share of a layer's squared weights that its factors keep at least; it chooses the rank, which is
    rounded up to a multiple of 8 where that still saves. Linear layers become two (SVD). Convolutions with a kernel
    become 1×1, kernel, 1×1 (`convolution` tucker, Kim et al. 2016) or 1×1, a column, a row, 1×1 (cp, Lebedev et al.
    2015). Nothing is trained. `layers` is all, linear or conv. Layers named in `keep` (separated by |) stay, as do
    those whose weights others share and those that the module fails without. Where there are calibration items,
    `refit` fits the last layer of each chain to what the layer in its place answered (least squares).
    """

    energy: Annotated[float, Range(0.5, 0.98, 0.01)] = 0.9
    layers: str = "all"
    convolution: str = "tucker"
    keep: str = ""
    refit: bool = True

    name = "factorize"
    order = 7
    needs_training = True
    tidy = True

    def __post_init__(self) -> None:
        if not 0 < self.energy < 1:
            raise BadInput(f"energy={self.energy:g} is no share; type a number between 0 and 1, such as 0.9")

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what no factory builds, and unknown kinds of layers and methods."""
        if self.layers not in LAYERS:
            return f"there is no kind of layers {self.layers!r}: choose all, linear or conv"
        if self.convolution not in METHODS:
            return f"there is no factorization {self.convolution!r} of convolutions: choose tucker or cp"
        return refusal(variant, self.name)

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with the layers replaced that can be.

        Raises:
            NothingToGain: No layer would take fewer multiply-accumulates at this energy.
            Refused: The module fails with every one of the new layers.
        """
        module, signature = load_live(variant.model), variant.model.signature
        chains = dict(self._chains(module, context.seed))
        if not chains:
            raise NothingToGain(f"no layer would take fewer multiply-accumulates at energy {self.energy:g}")

        made, sound = put(chains, module, signature)
        if self.refit:
            refit(module, made, chained(made, sound), variant, context)
        names = {*kept(self.keep), *chains} - set(sound)
        chosen = options_of(self, keep=SEPARATOR.join(sorted(names)))
        step = Step(technique=self.name, options=chosen, seed=context.seed)
        return variant.after(save_changed(variant.model, made, context.folder), step)

    def changes(self, before: Variant, after: Variant) -> tuple[str, ...]:
        """Return which layers were replaced, by what."""
        return replacements(load_live(before.model), load_live(after.model))

    def _chains(self, module: Any, seed: int) -> Iterator[tuple[str, Any]]:
        """Yield the name of each layer that is worth it with the chain in its place."""
        nn = import_torch("factorization").nn
        for name, layer in replaceable(module, kept(self.keep)):
            # Subclasses, such as the projection inside MultiheadAttention, are read by other code than their own.
            if type(layer) is nn.Linear and self.layers != "conv":
                chain = linear_chain(layer, self.energy)
            elif type(layer) is nn.Conv2d and self.layers != "linear" and math.prod(layer.kernel_size) > 1:
                factorized = tucker_chain if self.convolution == "tucker" else cp_chain
                chain = factorized(layer, self.energy, seed) if layer.groups == 1 else None
            else:
                continue
            if chain is not None:
                yield name, chain


def linear_chain(layer: Any, energy: float) -> Any:
    """Return two linear layers in place of one, None where they would not save multiply-accumulates."""
    nn, weight = import_torch("factorization").nn, weight_of(layer)
    makes, takes = weight.shape
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    most = (makes * takes - 1) // (makes + takes)  # rank × (makes + takes) < makes × takes
    rank = worth(rank_of(values, energy), most)
    if rank is None:
        return None
    spread = np.sqrt(values[:rank])  # half of each singular value on either side keeps both factors of one size
    first = nn.Linear(takes, rank, bias=False)
    second = nn.Linear(rank, makes, bias=layer.bias is not None)
    return chain_of(layer, (first, spread[:, None] * right[:rank]), (second, left[:, :rank] * spread))


def tucker_chain(layer: Any, energy: float, seed: int) -> Any:
    """Return 1×1, kernel and 1×1 convolutions in place of one, None where they would not save multiply-accumulates.

    The two ranks share what may be lost, so that the whole keeps the energy (De Lathauwer et al. 2000, property 10). A
    side of full rank gets no 1×1 convolution.
    """
    weight = weight_of(layer)
    enough = 1 - (1 - energy) / 2
    unfolded = [np.moveaxis(weight, mode, 0).reshape(size, -1) for mode, size in enumerate(weight.shape[:2])]
    exact = tuple(rank_of(np.linalg.svd(matrix, compute_uv=False), enough) for matrix in unfolded)
    upper = tuple(min(_up(rank), size) for rank, size in zip(exact, weight.shape, strict=False))
    whole = _tucker_macs(layer, weight.shape[0], weight.shape[1])
    for makes, takes in (upper, exact):
        if _tucker_macs(layer, makes, takes) < whole:
            return _tucker(layer, weight, (makes, takes), seed)
    return None


def cp_chain(layer: Any, energy: float, seed: int) -> Any:
    """Return 1×1, column, row and 1×1 convolutions in place of one, None where they would not save.

    Ranks, multiples of 8, are doubled until the factors, fitted by alternating least squares, keep the energy.
    """
    parafac, weight = _tensorly().decomposition.parafac, weight_of(layer)
    makes, takes, height, breadth = weight.shape
    down, across = layer.stride
    each = takes * down * across + height * across + breadth + makes  # products of one rank per output position
    most = (weight.size - 1) // each
    doubled = itertools.takewhile(lambda rank: rank <= most, (_MULTIPLE << power for power in range(32)))
    for rank in sorted({*doubled, most // _MULTIPLE * _MULTIPLE} - {0}):
        with quiet():
            found = parafac(weight, rank, n_iter_max=_ROUNDS, init="svd", tol=1e-6, random_state=seed)
        factors = [np.asarray(factor) for factor in found.factors]
        lost = weight - np.einsum("or,ir,hr,wr->oihw", *factors, optimize=True)
        if np.sum(lost**2) <= (1 - energy) * np.sum(weight**2):
            return _cp(layer, factors)
    return None


def rank_of(values: Array, energy: float) -> int:
    """Return how many of the singular values, the largest first, hold that share of the sum of their squares."""
    shares = np.cumsum(np.square(values, dtype=np.float64))
    return min(int(np.searchsorted(shares, energy * shares[-1] * (1 - 1e-12))) + 1, len(values))


def worth(rank: int, most: int) -> int | None:
    """Return a rank as a multiple of 8, or as it is where that would be more than `most`; None where it is, too."""
    if _up(rank) <= most:
        return _up(rank)
    return rank if rank <= most else None


def _up(rank: int) -> int:
    return -(-rank // _MULTIPLE) * _MULTIPLE


def _tucker_macs(layer: Any, makes: int, takes: int) -> int:
    """Return the multiply-accumulates per output position of a chain with these ranks; full ranks have no 1×1."""
    total: int = makes * takes * math.prod(layer.kernel_size)
    total += layer.in_channels * takes * math.prod(layer.stride) if takes < layer.in_channels else 0
    return total + (makes * layer.out_channels if makes < layer.out_channels else 0)


def _tucker(layer: Any, weight: Array, both: tuple[int, int], seed: int) -> Any:
    """Return the chain of a Tucker-2 decomposition with these ranks."""
    nn = import_torch("factorization").nn
    makes, takes = both
    ranks = {mode: rank for mode, rank in enumerate(both) if rank < weight.shape[mode]}
    sizes, modes = list(ranks.values()), list(ranks)
    with quiet():
        (core, factors), _ = _tensorly().decomposition.partial_tucker(weight, sizes, modes, random_state=seed)
    sides = dict(zip(ranks, factors, strict=True))
    bias = layer.bias is not None
    steps = [(moving_like(layer, takes, makes, bias=bias and 0 not in ranks), core)]
    if 1 in ranks:
        steps.insert(0, (nn.Conv2d(layer.in_channels, takes, 1, bias=False), sides[1].T[:, :, None, None]))
    if 0 in ranks:
        steps.append((nn.Conv2d(makes, layer.out_channels, 1, bias=bias), sides[0][:, :, None, None]))
    return chain_of(layer, *steps)


def _cp(layer: Any, factors: Sequence[Array]) -> Any:
    """Return the chain of a CP decomposition: factors [channel or place, rank] of outputs, inputs, columns and rows."""
    nn = import_torch("factorization").nn
    makes, takes, column, row = _balanced(factors)
    rank = makes.shape[1]
    steps = [(nn.Conv2d(layer.in_channels, rank, 1, bias=False), takes.T[:, :, None, None])]
    for axis, factor in ((0, column.T[:, None, :, None]), (1, row.T[:, None, None, :])):
        steps.append((moving_like(layer, rank, rank, bias=False, groups=rank, axis=axis), factor))
    steps.append((nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None), makes[:, :, None, None]))
    return chain_of(layer, *steps)


def _balanced(factors: Sequence[Array]) -> list[Array]:
    """Return the factors with columns of equal norms and the same products."""
    norms = np.array([np.maximum(np.linalg.norm(factor, axis=0), np.finfo(np.float64).tiny) for factor in factors])
    mean = np.exp(np.log(norms).mean(axis=0))
    return [factor * (mean / norm) for factor, norm in zip(factors, norms, strict=True)]


def _tensorly() -> Any:
    try:
        import tensorly
        import tensorly.decomposition
    except ImportError as error:
        raise MissingExtra("tensorly", "compress", "factorizing convolutions") from error
    return tensorly
