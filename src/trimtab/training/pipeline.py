"""Networks cut into stages, one a process, through which parts of a batch follow each other (Huang et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trimtab.core.errors import BadInput
from trimtab.formats.torch_tracing import FOREIGN_ERRORS, evaluated, first_line, import_torch
from trimtab.training.group import Group

Judge = Callable[[Any, Any], Any]
"""From the outputs of a part of a batch and what belongs to it to its mean loss."""

_PARTS_A_STAGE = 2  # with two parts for every stage it waits less than a third of the time, at smaller products


def stage_of(module: Any, leaves: Sequence[Any], group: Group) -> Any:
    """Return the part of a module that this process runs: its weights are those of the module, by the same names.

    The memory of the others is freed, so that the module itself can't run any more. It is cut where nothing but one
    tensor goes on, so that the weights of all stages are about as large; what no stage uses is kept with the first.

    Args:
        module: a module of one input.
        leaves: modules that are not cut.
        group: the processes.

    Raises:
        BadInput: it can't be traced, or has too few places to cut it at.
    """
    torch = import_torch("training")
    fx, tracer = torch.fx, torch.fx.Tracer()
    usual = tracer.is_leaf_module
    tracer.is_leaf_module = lambda part, name: part in leaves or usual(part, name)
    try:
        graph = tracer.trace(module)
    except FOREIGN_ERRORS as error:
        raise BadInput(
            f"the network can't be cut into stages: it can't be traced ({first_line(error)}); use --parallel fsdp"
        ) from error
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise BadInput(f"a pipeline takes networks of one input, and this one has {len(inputs)}; use --parallel fsdp")
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    cuts = [0, *_cuts(module, nodes, inputs[0], group.size), len(nodes)]
    mine = nodes[cuts[group.rank] : cuts[group.rank + 1]]
    stage = fx.GraphModule(module, _part(fx, mine, nodes[cuts[group.rank] - 1] if group.rank else inputs[0]))
    if group.rank == 0:
        used = {id(each) for node in nodes for each in _held(module, node)}
        for owner in {name.rpartition(".")[0] for name, each in _tensors(module) if id(each) not in used} - {""}:
            stage.add_submodule(owner, module.get_submodule(owner))
    kept = set(stage.parameters())
    for weight in module.parameters():
        if weight not in kept:
            weight.data = torch.empty(0, dtype=weight.dtype)
    return stage


def _cuts(module: Any, nodes: Sequence[Any], given: Any, stages: int) -> list[int]:
    """Return the numbers of nodes after which to cut, so that each stage has about as many bytes of weights."""
    sizes, total = [], 0
    for node in nodes:
        total += _bytes(module, node)
        sizes.append(total)
    able = [
        place for place in range(1, len(nodes)) if _alone(nodes, given, place) and not _shared(module, nodes, place)
    ]
    cuts: list[int] = []
    for stage in range(1, stages):
        left = [place for place in able if place > (cuts[-1] if cuts else 0)]
        left = left[: len(left) - (stages - 1 - stage)]  # the later stages need a place each
        if not left:
            raise BadInput(
                f"the network can't be cut into {stages} stages: there are {len(able)} places where nothing but one "
                "tensor goes on; use --parallel fsdp"
            )
        wanted = total * stage / stages
        cuts.append(min(left, key=lambda place: abs(sizes[place - 1] - wanted)))
    return cuts


def _alone(nodes: Sequence[Any], given: Any, place: int) -> bool:
    """Say whether only the last value before a place is used after it."""
    after = set(nodes[place:])
    return not any(after & set(node.users) for node in (given, *nodes[: place - 1]))


def _shared(module: Any, nodes: Sequence[Any], place: int) -> bool:
    """Say whether both sides of a place use the same weights or the same statistics."""
    before, after = (
        {id(each) for node in side for each in _held(module, node)} for side in (nodes[:place], nodes[place:])
    )
    return bool(before & after)


def _tensors(module: Any) -> list[tuple[str, Any]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _held(module: Any, node: Any) -> list[Any]:
    """Return the weights and buffers that a node uses."""
    if node.op == "call_module":
        part = module.get_submodule(node.target)
        return [*part.parameters(), *part.buffers()]
    if node.op == "get_attr":
        owner, _, name = node.target.rpartition(".")
        return [getattr(module.get_submodule(owner), name)]
    return []


def _bytes(module: Any, node: Any) -> int:
    return sum(each.numel() * each.element_size() for each in _held(module, node) if hasattr(each, "numel"))


def _part(fx: Any, nodes: Sequence[Any], before: Any) -> Any:
    """Return the graph that makes of the value of the node before what the last of some nodes is."""
    graph = fx.Graph()
    copies = {before: graph.placeholder(before.name)}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[nodes[-1]])
    return graph


class Pipeline:
    """A stage that learns and answers together with those of the other processes."""

    def __init__(self, stage: Any, group: Group, parts: int = 1) -> None:
        self.stage, self._group = stage, group
        self._parts = parts if parts > 1 else _PARTS_A_STAGE * group.size
        self._schedules: dict[tuple[int, bool], Any] = {}
        self._judge: Judge | None = None

    def learn(self, given: Any, wanted: Any, judge: Judge) -> float:
        """Leave the gradients of a batch's mean loss in the stage, and return the loss.

        Args:
            given: the input of the network, the same in every process.
            wanted: what belongs to it, item by item, for the judge.
            judge: the loss; all parts of the batch have as many items.
        """
        losses: list[Any] = []
        self._judge = judge
        schedule, last = self._schedule(given, learning=True), self._group.rank == self._group.size - 1
        schedule.step(
            *self._first(given), target=wanted if last else None, losses=losses if last else None, return_outputs=False
        )
        return self._group.summed(sum(loss.item() for loss in losses) / len(losses) if last else 0.0)[0]

    def __call__(self, **given: Any) -> Any:
        """Return the outputs of the network, in every process."""
        torch = import_torch("training")
        (tensor,) = given.values()
        with torch.no_grad():
            held = [self._schedule(tensor, learning=False).step(*self._first(tensor))]
        torch.distributed.broadcast_object_list(held, self._group.size - 1)
        return held[0]

    def _first(self, given: Any) -> tuple[Any, ...]:
        return (given,) if self._group.rank == 0 else ()

    def _schedule(self, given: Any, *, learning: bool) -> Any:
        """Return what runs batches of so many items as are given."""
        items = len(given)
        if (items, learning) not in self._schedules:
            from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

            group = self._group
            parts = max(count for count in range(1, min(self._parts, items) + 1) if items % count == 0)
            before, after = self._exchanged(given[: items // parts], learning=learning)
            device = import_torch("training").device(group.device)
            stage = PipelineStage(self.stage, group.rank, group.size, device, input_args=before, output_args=after)
            kind = Schedule1F1B if parts >= group.size else ScheduleGPipe
            self._schedules[items, learning] = kind(stage, parts, loss_fn=self._judged if learning else None)
        return self._schedules[items, learning]

    def _exchanged(self, given: Any, *, learning: bool) -> tuple[Any, Any]:
        """Return what the stage takes and gives for a part of a batch, as tensors without content.

        PyTorch would find out by itself, by learning from what happens to be in memory: batch normalization keeps that.
        """
        torch, found = import_torch("training"), given
        for rank in range(self._group.size):
            if rank == self._group.rank:
                before = found
                with evaluated(self.stage), torch.no_grad():
                    found = self.stage(before)
            told = [(found.shape, found.stride(), found.dtype)]
            torch.distributed.broadcast_object_list(told, rank)
            if rank == self._group.rank:
                after = found
            shape, strides, kind = told[0]
            found = torch.empty_strided(shape, strides, dtype=kind, device=self._group.device).zero_()
        ends = [torch.empty_like(each, device="meta") for each in (before, after)]
        for each in ends:
            each.requires_grad_(learning and each.is_floating_point())
        return ends[0], ends[1]

    def _judged(self, outputs: Any, wanted: Any) -> Any:
        assert self._judge is not None
        return self._judge(outputs, wanted)
