"""Runs PyTorch modules and exported programs compiled by torch.compile (TorchInductor)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from trimtab.core.protocols import Engine
from trimtab.core.values import Machine, Settings, Variant, Workload
from trimtab.formats.torch_tracing import import_torch
from trimtab.runtimes.torch import TorchEngine, refusal


class TorchCompileRuntime:
    """PyTorch compiled for the CPU by TorchInductor. The first call at each new shape compiles.

    `startup_s` is about what the first call costs, so that a search can keep it for when its budget allows.
    """

    name = "torch-compile"
    startup_s = 60.0

    def refuses(self, variant: Variant) -> str | None:
        """Refuse what PyTorch eager refuses, and machines without the C++ compiler that TorchInductor calls."""
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return f"torch.compile needs a C++ compiler and there is no {compiler}; install g++ or set CXX"
        return refusal(self.name, variant)

    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        """Return the defaults, and bf16 where the processor computes it."""
        found = [Settings(runtime=self.name)]
        if {"amx_bf16", "avx512_bf16"} & set(machine.flags):
            found.append(Settings(runtime=self.name, precision="bf16"))
        return found

    def load(self, variant: Variant) -> Engine:
        """Return the engine; too many shapes to compile for are an error there, never a silent return to eager."""
        torch = import_torch("running with torch.compile")
        torch._dynamo.config.fail_on_recompile_limit_hit = True

        def compiled(module: Any) -> Any:
            return torch.compile(module)

        return TorchEngine(variant, compiled)
