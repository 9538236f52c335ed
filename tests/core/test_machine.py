from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.core import codec
from trimtab.core.machine import during, machine
from trimtab.core.values import Machine

X86 = """processor\t: 0
model name\t: Example CPU 9000 @ 2.0GHz
flags\t\t: fpu avx avx2 fma avx512f avx512_vnni {hypervisor}

processor\t: 1
model name\t: Other
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


def tree(root: Path, **files: str) -> Path:
    """Write a fake / ; a name's double underscores are slashes."""
    for name, text in files.items():
        write(root, name.replace("__", "/"), text)
    return root


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_reads_this_machine_and_survives_the_codec() -> None:
    found = machine()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 1 << 20
    assert dict(found.versions)["numpy"]
    assert codec.loads(Machine, codec.dumps(found)) == found
    assert found.digest == machine().digest


def test_imports_no_framework() -> None:
    code = "import sys; from trimtab.core.machine import machine; machine(); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{name}'" in loaded for name in ("onnx", "onnxruntime", "openvino", "torch", "scipy"))


def test_reads_name_and_flags_of_the_first_processor(tmp_path: Path) -> None:
    found = machine(tree(tmp_path, proc__cpuinfo=X86.format(hypervisor="")))
    assert found.cpu == "Example CPU 9000 @ 2.0GHz"
    assert found.flags == ("avx", "avx2", "fma", "avx512f", "avx512_vnni")


def test_names_an_arm_processor_by_its_part(tmp_path: Path) -> None:
    found = machine(tree(tmp_path, proc__cpuinfo=ARM))
    assert found.cpu == "implementer 0x41, part 0xd0c"
    assert found.flags == ("asimd", "asimddp", "i8mm")


def test_an_empty_tree_leaves_everything_unknown(tmp_path: Path) -> None:
    found = machine(tmp_path)
    assert found.cpu == os.uname().machine
    assert found.flags == ()
    assert found.cores >= 1
    assert found.memory_bytes > 0
    assert (found.hypervisor, found.governor, found.load_average, found.pressure, found.steal_s) == (None,) * 5


def test_garbage_in_the_tree_is_unknown_too(tmp_path: Path) -> None:
    found = machine(
        tree(tmp_path, proc__cpuinfo="\x00::::\n", proc__stat="cpu x", proc__pressure__cpu="avg10=?", proc__loadavg="-")
    )
    assert (found.load_average, found.pressure, found.steal_s) == (None, None, None)


@pytest.mark.usefixtures("eight_cores")
def test_the_smallest_quota_up_the_version_2_tree_limits_the_cores(tmp_path: Path) -> None:
    tree(tmp_path, proc__self__cgroup="0::/a/b\n")
    write(tmp_path, "sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/a/cpu.max", "350000 100000\n")
    assert machine(tmp_path).cores == 3
    write(tmp_path, "sys/fs/cgroup/a/b/cpu.max", "50000 100000\n")
    assert machine(tmp_path).cores == 1


@pytest.mark.usefixtures("eight_cores")
def test_version_1_limits_apply_though_the_named_folder_is_hidden(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__self__cgroup="5:cpu,cpuacct:/outside/view\n4:memory:/outside/view\n",
        proc__meminfo="MemTotal: 100 kB",
    )
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "4096")
    found = machine(tmp_path)
    assert (found.cores, found.memory_bytes) == (2, 4096)


@pytest.mark.usefixtures("eight_cores")
def test_no_quota_leaves_the_affinity(tmp_path: Path) -> None:
    tree(tmp_path, proc__self__cgroup="3:cpu:/\n0::/\n", proc__meminfo="MemTotal: 100 kB")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    found = machine(tmp_path)
    assert (found.cores, found.memory_bytes) == (8, 102_400)


def test_the_flag_says_virtual_and_the_firmware_says_whose(tmp_path: Path) -> None:
    assert machine(tree(tmp_path, proc__cpuinfo=X86.format(hypervisor="hypervisor"))).hypervisor == "unnamed"
    tree(tmp_path, sys__class__dmi__id__sys_vendor="QEMU\n")
    assert machine(tmp_path).hypervisor == "QEMU"
    tree(tmp_path, proc__cpuinfo=X86.format(hypervisor=""))
    assert machine(tmp_path).hypervisor is None


def test_reads_load_pressure_steal_and_governor(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__loadavg="1.25 0.9 0.5 2/300 4242\n",
        proc__pressure__cpu="some avg10=12.50 avg60=1.0 avg300=0.1 total=5\n",
        proc__stat="cpu  10 20 30 40 50 60 70 250 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="powersave\n",
    )
    found = machine(tmp_path)
    assert (found.load_average, found.pressure, found.governor) == (1.25, 0.125, "powersave")
    assert found.steal_s == 250 / os.sysconf("SC_CLK_TCK")


def test_load_does_not_change_the_identity_but_a_core_does() -> None:
    found = machine()
    assert replace(found, load_average=99.0, steal_s=1e6, pressure=1.0).digest == found.digest
    assert replace(found, cores=found.cores + 1).digest != found.digest


def test_over_a_time_the_worse_end_counts_and_what_was_stolen_between() -> None:
    start = replace(machine(), load_average=0.5, pressure=None, steal_s=10.0)
    found = during(start, replace(start, load_average=2.0, pressure=0.25, steal_s=12.5))
    assert (found.load_average, found.pressure, found.steal_s) == (2.0, 0.25, 2.5)
    assert during(start, replace(start, load_average=0.1)).load_average == 0.5
    assert found.digest == start.digest


def test_over_a_time_what_is_unknown_stays_unknown_and_never_zero() -> None:
    silent = replace(machine(), load_average=None, pressure=None, steal_s=None)
    found = during(silent, silent)
    assert (found.load_average, found.pressure, found.steal_s) == (None, None, None)
    assert during(silent, replace(silent, steal_s=5.0)).steal_s is None


def test_a_counter_that_was_set_back_did_not_steal_less_than_nothing() -> None:
    start = replace(machine(), steal_s=10.0)
    assert during(start, replace(start, steal_s=1.0)).steal_s == 0.0


def installed(folder: Path, name: str) -> Path:
    """Write what pip leaves of a package, version 99."""
    write(folder, f"{name}-99.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 99\n")
    return folder


def test_the_versions_do_not_depend_on_what_the_code_of_a_model_puts_on_the_path(tmp_path: Path) -> None:
    first, last = installed(tmp_path / "first", "numpy"), installed(tmp_path / "last", "torchao")
    code = (
        "import sys; from trimtab.core.machine import machine; "
        f"sys.path.insert(0, {str(first)!r}); sys.path.append({str(last)!r}); print(dict(machine().versions))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str(dict(machine().versions))


def test_a_package_that_the_user_put_on_the_path_beforehand_is_recorded(tmp_path: Path) -> None:
    asked = {**os.environ, "PYTHONPATH": str(installed(tmp_path, "torchao"))}
    code = "from trimtab.core.machine import machine; print(dict(machine().versions)['torchao'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=asked).stdout
    assert shown.strip() == "99"


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize("text", ["", "100000", "0 0", "abc 100000", "100000 0", "-5 100000"])
def test_a_quota_that_makes_no_sense_limits_nothing(tmp_path: Path, text: str) -> None:
    tree(tmp_path, proc__self__cgroup="0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", text)
    assert machine(tmp_path).cores == 8
