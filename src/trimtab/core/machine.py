"""The record of the computer that a measurement is made on, read from /proc and /sys without running anything."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import cache
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath

from trimtab.core.values import Machine, Options, options

FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
"""The processor's abilities that decide how fast a network runs: vectors, dot products of small types, matrix tiles."""

FRAMEWORKS = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "torch", "torchao")
"""The packages whose version can change a measurement."""

_ROOT = Path("/")
_PATH = list(sys.path)  # before the code of a model adds to it: a record must not depend on what was opened first


def machine(root: Path = _ROOT) -> Machine:
    """Return the record of this machine as it is now.

    `cores` and `memory_bytes` are what this process may use (affinity, control-group limits). `pressure` is the
    share of the last 10 s in which something waited for a processor, `steal_s` the seconds that the hypervisor
    has taken since boot. What the system does not tell is None. `root` stands for `/` in tests.
    """
    processor = _processor(root)
    kernel = os.uname()
    return Machine(
        cpu=_cpu_name(processor) or kernel.machine,
        flags=_flags(processor),
        cores=_cores(root),
        memory_bytes=_memory_bytes(root),
        hypervisor=_hypervisor(root, processor),
        governor=_line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        system=f"{kernel.sysname} {kernel.release} {kernel.machine}",
        python=f"{sys.implementation.name} {sys.version.split()[0]}",
        versions=_versions(),
        load_average=_first_number(_text(root / "proc/loadavg")),
        pressure=_pressure(root),
        steal_s=_steal_s(root),
    )


def during(start: Machine, end: Machine) -> Machine:
    """Return the record of one machine over the time between two of its records.

    Load and pressure are the higher of both ends, steal is what the hypervisor took between them.
    """
    stolen = None if start.steal_s is None or end.steal_s is None else max(0.0, end.steal_s - start.steal_s)
    return replace(
        start,
        load_average=_higher(start.load_average, end.load_average),
        pressure=_higher(start.pressure, end.pressure),
        steal_s=stolen,
    )


def _higher(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _text(path: Path) -> str:
    """Return a small system file, empty when it is missing or can't be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _line(path: Path) -> str | None:
    return _text(path).strip() or None


def _first_number(text: str) -> float | None:
    try:
        return float(text.split()[0])
    except (IndexError, ValueError):
        return None


def _processor(root: Path) -> dict[str, str]:
    """Return the first processor's entries of /proc/cpuinfo."""
    first = _text(root / "proc/cpuinfo").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _cpu_name(processor: dict[str, str]) -> str:
    name = processor.get("model name") or processor.get("Hardware")
    if name:
        return name
    parts = [f"{word} {processor[f'CPU {word}']}" for word in ("implementer", "part") if f"CPU {word}" in processor]
    return ", ".join(parts)


def _flags(processor: dict[str, str]) -> tuple[str, ...]:
    found = set((processor.get("flags") or processor.get("Features") or "").split())
    return tuple(flag for flag in FLAGS if flag in found)


def _cores(root: Path) -> int:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """Return the processor limits, in cores, of the control groups that this process is in (versions 2 and 1)."""
    found = []
    for folder in _control_groups(root, ""):
        words = _text(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            found.append(int(words[0]) / int(words[1]))
    for folder in _control_groups(root, "cpu"):
        quota, period = (_first_number(_text(folder / f"cpu.cfs_{word}_us")) for word in ("quota", "period"))
        if quota is not None and period and quota > 0:
            found.append(quota / period)
    return found


def _memory_bytes(root: Path) -> int:
    words = _text(root / "proc/meminfo").split()
    known = [int(words[words.index("MemTotal:") + 1]) * 1024] if "MemTotal:" in words else []
    limits = [folder / "memory.max" for folder in _control_groups(root, "")]
    limits += [folder / "memory.limit_in_bytes" for folder in _control_groups(root, "memory")]
    known += [int(text) for text in (_text(limit).strip() for limit in limits) if text.isdigit()]
    return min(known) if known else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_groups(root: Path, controller: str) -> list[Path]:
    """Return the folders, from this process's control group up to the top, that may hold limits of a controller.

    The controller is empty for version 2. Inside a container the named folder may not be visible; its parents are.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if (number == "0" and not controllers) if not controller else controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
            inner = PurePosixPath(name.lstrip("/"))
            return [top / inner, *(top / parent for parent in inner.parents)]
    return []


def _hypervisor(root: Path, processor: dict[str, str]) -> str | None:
    """Return the maker of the virtual machine, None on bare metal. The flag decides, other files only name it."""
    kind = _line(root / "sys/hypervisor/type")
    if "hypervisor" not in processor.get("flags", "").split():
        return kind
    return kind or _line(root / "sys/class/dmi/id/sys_vendor") or "unnamed"


def _pressure(root: Path) -> float | None:
    for word in _text(root / "proc/pressure/cpu").split():
        if word.startswith("avg10="):
            percent = _first_number(word.removeprefix("avg10="))
            return None if percent is None else percent / 100
    return None


def _steal_s(root: Path) -> float | None:
    words = _text(root / "proc/stat").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu" or not words[8].isdigit():
        return None
    return int(words[8]) / os.sysconf("SC_CLK_TCK")


@cache
def _versions() -> Options:
    found = {name: next(iter(distributions(name=name, path=_PATH)), None) for name in FRAMEWORKS}
    return options({name: held.version for name, held in found.items() if held is not None})
