"""Checks that a converted model still computes what it was made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trimtab.core import plugins
from trimtab.core.errors import Refused
from trimtab.core.protocols import Arrays
from trimtab.core.values import Settings, Signature, Variant, Workload
from trimtab.data import synthetic
from trimtab.formats.torch_tracing import BATCH

_RELATIVE = 1e-3
_ABSOLUTE = 1e-4
_BATCHES = (1, 3)
_LENGTH = 16


def check_agreement(before: Variant, after: Variant, seed: int) -> None:
    """Run both on the same random inputs at two batch sizes; raise `Refused` where their outputs differ.

    Each output may differ by a thousandth of its largest magnitude plus a small absolute amount.
    """
    fixed = all(isinstance(spec.shape[0], int) for spec in after.model.signature.inputs if spec.shape)
    # Precision hints change numbers by design, so both run in the plain precision of their engine.
    engines = [
        plugins.make("runtimes", variant.settings.runtime).load(variant.on(_plain(variant)))
        for variant in (before, after)
    ]
    plain = _one_step(after.model.signature)
    # Short enough for any limit on positions; images keep their usual size.
    free = {size for spec in plain.inputs if len(spec.shape) != 4 for size in spec.shape[1:] if isinstance(size, str)}
    lengths = tuple((name, _LENGTH) for name in sorted(free - {BATCH}))
    for batch in _BATCHES[:1] if fixed else _BATCHES:
        feeds = synthetic.inputs(plain, Workload(batch=batch, lengths=lengths), seed)
        ours = engines[0](feeds)
        try:
            theirs = engines[1](feeds)
        except Exception as error:  # each engine raises types of its own, which can't be imported here
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = (lines or [type(error).__name__])[-1][:200]
            raise Refused(f"the converted model fails with {batch} items where the original runs: {reason}") from error
        for name in ours:
            _compare(name, ours, theirs)


def _one_step(signature: Signature) -> Signature:
    """Return the signature with its states as plain inputs: one step is compared, from a random state."""
    inputs = tuple(replace(spec, role="data", fed_by=None) for spec in signature.inputs)
    return Signature(inputs=inputs, outputs=signature.outputs)


def _plain(variant: Variant) -> Settings:
    precision = "fp32" if variant.settings.runtime == "openvino" else None
    return Settings(runtime=variant.settings.runtime, precision=precision, threads=variant.settings.threads)


def _compare(name: str, ours: Arrays, theirs: Arrays) -> None:
    if name not in theirs:
        raise Refused(f"the converted model has no output {name!r}; it has {', '.join(theirs)}")
    one, other = np.asarray(ours[name]), np.asarray(theirs[name])
    if one.shape != other.shape:
        raise Refused(f"output {name!r} of the converted model has the shape {other.shape}, the original's {one.shape}")
    allowed = _ABSOLUTE + _RELATIVE * float(np.nan_to_num(np.abs(one), posinf=0.0).max(initial=0.0))
    same = np.isclose(one, other, rtol=0.0, atol=allowed, equal_nan=True)
    if not same.all():
        with np.errstate(invalid="ignore"):  # what is infinite in both is the same
            apart = np.abs(one.astype(np.float64) - other.astype(np.float64))[~same]
        worst = float(np.nan_to_num(apart, nan=np.inf).max())
        raise Refused(f"output {name!r} of the converted model differs by up to {worst:.3g}, allowed is {allowed:.3g}")
