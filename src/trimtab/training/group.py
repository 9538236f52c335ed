"""The processes that train one network together: which of them this one is, and what they agree on."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from trimtab.core.errors import WorkerCrashed
from trimtab.formats.torch_tracing import first_line, import_torch

WAYS = ("ddp", "fsdp", "tensor", "pipeline")
"""How processes divide the work: the items (ddp), also the weights (fsdp), the inside of layers (tensor), or the layers
one after the other (pipeline)."""

SILENCE_S = 1800.0
"""How long a process waits for the others; judging the select items must not take longer."""

_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """This process among those that train together: number `rank` of `size`, computing on `device`.

    All of them call the same methods in the same order, and get the same from them.
    """

    rank: int = 0
    size: int = 1
    parallel: str = "ddp"
    device: str = "cpu"

    @property
    def share(self) -> tuple[int, int]:
        """Which part of every batch is learnt from here, of how many."""
        return (self.rank, self.size) if self.parallel in ("ddp", "fsdp") else (0, 1)

    @property
    def divided(self) -> bool:
        """Whether no process has the whole network, so that all have to take part in using it."""
        return self.size > 1 and self.parallel != "ddp"

    @property
    def mesh(self) -> Any:
        """The processes as PyTorch's sharding wants them: a `DeviceMesh` of one dimension."""
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(self.device.partition(":")[0], (self.size,))

    def summed(self, *values: float) -> tuple[float, ...]:
        """Return the sums of some numbers over all processes."""
        return self._exchanged(values, lambda torch, held: torch.distributed.all_reduce(held))

    def first(self, *values: float) -> tuple[float, ...]:
        """Return some numbers of the first process: it decides what depends on a clock, or on what it alone knows."""
        return self._exchanged(values, lambda torch, held: torch.distributed.broadcast(held, 0))

    def _exchanged(self, values: tuple[float, ...], exchange: Any) -> tuple[float, ...]:
        if self.size == 1:
            return values
        torch = import_torch("training")
        held = torch.tensor(values, dtype=torch.float64)
        with in_touch():
            exchange(torch, held)
        return tuple(held.tolist())

    def collected(self, tensor: Any) -> list[Any]:
        """Return what every process holds of a tensor, by rank. No process gets it before all have asked for it."""
        if self.size == 1:
            return [tensor]
        torch = import_torch("training")
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with in_touch():
            torch.distributed.all_gather(found, tensor)
        return found

    def in_stages(self, value: float) -> float:
        """Return the sum of what each process knows of its own stage; the value itself where there are no stages."""
        return self.summed(value)[0] if self.parallel == "pipeline" else value

    def merged(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return to the first process the tensors of all stages by name, which are all there are elsewhere."""
        if self.size == 1 or self.parallel != "pipeline":
            return dict(tensors)
        torch, found = import_torch("training"), dict(tensors) if self.rank == 0 else {}
        listed: list[Any] = [None] * self.size
        with in_touch():
            torch.distributed.all_gather_object(listed, [(name, x.shape, x.dtype) for name, x in tensors.items()])
            for rank, names in enumerate(listed[1:], start=1):
                for name, shape, dtype in names:
                    if self.rank == 0:
                        found[name] = torch.empty(shape, dtype=dtype)
                        torch.distributed.recv(found[name], rank)
                    elif self.rank == rank:
                        torch.distributed.send(tensors[name].detach().cpu().contiguous(), 0)
        return found

    def told(self, text: str = "") -> str:
        """Return the text that the first process gives."""
        if self.size == 1:
            return text
        torch, content = import_torch("training"), text.encode()
        (count,) = self.first(float(len(content)))
        held = torch.zeros(int(count), dtype=torch.uint8)
        if self.rank == 0:
            held = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with in_touch():
            torch.distributed.broadcast(held, 0)
        return bytes(held.tolist()).decode()

    def replicated(self, module: Any) -> Any:
        """Return what is called instead of a module: its backward pass leaves the mean of all gradients everywhere.

        The buckets of gradients stay those of the first step (unused weights are looked for in every step), so that
        a sum over more than two processes is the same bit for bit after going on from a checkpoint.
        """
        if self.size == 1 or self.divided:
            return module
        torch = import_torch("training")
        with in_touch():
            return torch.nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)


ALONE = Group()
"""The group of a process that trains by itself."""


@contextlib.contextmanager
def in_touch() -> Iterator[None]:
    """Tell in one line that another process was lost."""
    try:
        yield
    except RuntimeError as error:
        raise_if_lost(error)
        raise


def raise_if_lost(error: BaseException) -> None:
    """Raise `WorkerCrashed` where an error of PyTorch's says that another process does not answer any more."""
    if any(name in str(error).lower() for name in ("gloo", "nccl", "tcpstore", "process group")):
        raise WorkerCrashed(
            f"another process of this training does not answer ({first_line(error)}); "
            "run the same command again to go on from the checkpoint"
        ) from error


@contextlib.contextmanager
def joined(rank: int, size: int, parallel: str, store: Any, silence_s: float = SILENCE_S) -> Iterator[Group]:
    """Be a process of the group that meets at a store of `torch.distributed`, all of them on this machine."""
    if _LOOPBACK in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)  # this process is ours; nobody outside can reach it
    meet = {"store": store, "rank": rank, "world_size": size, "timeout": timedelta(seconds=silence_s)}
    with _initialized(parallel, rank, size, meet) as group:
        yield group


def torchrun_started() -> tuple[int, int]:
    """Return the rank of this process among those that torchrun started, and their number: (0, 1) without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


@contextlib.contextmanager
def started_by_torchrun(parallel: str) -> Iterator[Group]:
    """Be a process of the group that torchrun started, or alone where it started one process or none."""
    if torchrun_started()[1] == 1:
        yield ALONE
        return
    here, local = (int(os.environ[f"LOCAL_{name}"]) for name in ("WORLD_SIZE", "RANK"))
    with _initialized(parallel, local, here, {"timeout": timedelta(seconds=SILENCE_S)}) as group:
        yield group


@contextlib.contextmanager
def _initialized(parallel: str, local: int, here: int, meet: Mapping[str, Any]) -> Iterator[Group]:
    """Be number `local` of the `here` processes of this machine: each has a GPU of its own where there are enough."""
    torch = import_torch("training")
    distributed, device = torch.distributed, "cpu"
    if torch.cuda.device_count() >= here and distributed.is_nccl_available():
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    with in_touch():
        distributed.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", **meet)
    yield Group(rank=distributed.get_rank(), size=distributed.get_world_size(), parallel=parallel, device=device)
    distributed.destroy_process_group()
