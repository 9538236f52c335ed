"""Graph simplification and offline fusion of ONNX models by ONNX Runtime's own optimizer."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from trimtab.core.errors import NothingToGain
from trimtab.core.protocols import Choices, Context
from trimtab.core.values import Model, Step, Task, Variant, options
from trimtab.formats.graph import nodes
from trimtab.formats.onnx import save

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplify:
    """Folds constants and batch normalization, and removes dead ends and what does nothing.

    Level "basic" keeps to standard operators, which every engine runs; "extended" also writes ONNX Runtime's fused
    operators into the file, which only that engine runs. Neither depends on the processor.
    """

    level: Annotated[str, Choices("basic", "extended")] = "basic"

    name = "simplify"
    order = 5  # cheap, but engines do most of it by themselves: after what gains more

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Refuse what is not ONNX, a level that doesn't exist, and fused operators for another engine."""
        if self.level not in ("basic", "extended"):
            return f"there is no level {self.level!r}: choose basic or extended"
        if variant.model.format != "onnx":
            return f"simplify works on onnx models, this one is {variant.model.format}"
        if self.level == "extended" and variant.settings.runtime != "onnxruntime":
            return f"the fused operators of level extended run on onnxruntime only, not on {variant.settings.runtime}"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the variant with the simplified model.

        Raises:
            NothingToGain: Nothing could be simplified.
        """
        import onnx

        proto = optimized(variant.model.path, self.level)
        before = onnx.load(variant.model.path, load_external_data=False)
        if [node.op_type for node in before.graph.node] == [node.op_type for node in proto.graph.node]:
            raise NothingToGain("there is nothing to simplify: the graph has no operator to fold, fuse or remove")
        model = saved(proto, variant, context.folder)
        step = Step(technique=self.name, options=options(level=self.level), seed=context.seed)
        return variant.after(model, step)

    def changes(self, before: Variant, after: Variant) -> tuple[str, ...]:
        """Return what was fused, one group a line."""
        import onnx

        return fused_groups(*(onnx.load(each.model.path, load_external_data=False) for each in (before, after)))


def saved(proto: onnx.ModelProto, variant: Variant, folder: Path) -> Model:
    """Write what was made of a variant's ONNX model into the folder; its states stay states."""
    states = tuple((spec.name, spec.fed_by) for spec in variant.model.signature.states if spec.fed_by)
    return save(proto, folder / "model.onnx", states)


def session(source: str | bytes, **wanted: Any) -> Any:
    """Return a quiet session of ONNX Runtime on the CPU; `wanted` are attributes of its `SessionOptions`."""
    import onnxruntime

    given = onnxruntime.SessionOptions()
    given.log_severity_level = 3
    for name, value in wanted.items():
        setattr(given, name, value)
    return onnxruntime.InferenceSession(source, given, providers=["CPUExecutionProvider"])


def optimized(path: Path, level: str) -> onnx.ModelProto:
    """Return an ONNX model as ONNX Runtime's optimizer ("basic" or "extended") leaves it; every node has a name."""
    import onnx
    import onnxruntime
    from onnx.external_data_helper import load_external_data_for_model

    level_of = onnxruntime.GraphOptimizationLevel
    wanted = level_of.ORT_ENABLE_BASIC if level == "basic" else level_of.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        session(str(path), graph_optimization_level=wanted, optimized_model_filepath=str(target))
        proto = onnx.load(target, load_external_data=False)
    # what the optimizer left as it was still refers to the file beside the model that was given
    load_external_data_for_model(proto, str(path.parent))
    _tidy(proto)
    return proto


def _tidy(proto: onnx.ModelProto) -> None:
    """Name every node, and take back the import of operator sets that no node uses: other engines stumble over them."""
    taken = {node.name for node in proto.graph.node}
    for index, node in enumerate(proto.graph.node):
        if not node.name:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            taken.add(name)
            node.name = name
    used = {node.domain for node in nodes(proto)} | {""}
    imports = [given for given in proto.opset_import if given.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)


def fused_groups(before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[str, ...]:
    """Return what was fused: "Conv + Relu → FusedConv (conv1)", in the order of the graph.

    A node of the fused graph stands for the nodes of the original between its inputs and its outputs.
    """
    makers = {name: node for node in before.graph.node for name in node.output if name}
    known = makers.keys() | {given.name for graph in (before.graph, after.graph) for given in graph.input}
    known |= {tensor.name for tensor in after.graph.initializer} | {""}
    groups = []
    for node in after.graph.node:
        members = _between(makers, list(node.output), set(node.input))
        if len(members) > 1 and known >= set(node.input):  # a tensor that is new has no place in the original
            parts = " + ".join(member.op_type for member in members)
            groups.append(f"{parts} → {node.op_type} ({members[0].name or members[0].output[0]})")
    return tuple(groups)


def _between(makers: dict[str, onnx.NodeProto], outputs: list[str], inputs: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that make the outputs from the inputs, first ones first, without constants."""
    found: list[onnx.NodeProto] = []
    waiting = [name for name in outputs if name not in inputs]
    seen = set(waiting)
    while waiting:
        node = makers.get(waiting.pop(0))
        if node is None or node.op_type in ("Constant", "Identity") or node in found:
            continue
        found.insert(0, node)
        fresh = [name for name in node.input if name not in inputs and name not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return found
