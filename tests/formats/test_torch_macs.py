"""MACs of PyTorch models against hand counts, the operators that PyTorch's own counter reads as zero included."""

from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import TensorSpec, Work, Workload

torch = pytest.importorskip("torch")

from trimtab.formats.torch import save_module  # noqa: E402 (after the skip)
from trimtab.formats.torch_export import TorchExportFormat  # noqa: E402
from trimtab.formats.torch_macs import count  # noqa: E402
from trimtab.formats.torch_tracing import describe, export, forward_inputs  # noqa: E402

nn = torch.nn
functional = nn.functional


@pytest.fixture(autouse=True)
def few_threads() -> None:
    torch.set_num_threads(1)


class Calls(nn.Module):
    """Calls a function on its inputs."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, a, b):  # type: ignore[no-untyped-def]
        return self.function(a, b)


def counted(module: Any, *shapes: tuple[int, ...]) -> Work:
    names = forward_inputs(module.eval())[0]
    inputs = tuple(TensorSpec(name=n, dtype="float32", shape=s) for n, s in zip(names, shapes, strict=False))
    return count(export(module, describe(module, inputs)), inputs)


LAYERS = [
    (nn.Conv2d(3, 8, 5, stride=2, padding=2, groups=1), [(2, 3, 16, 16)], 2 * 8 * 8 * 8 * 3 * 5 * 5),
    (nn.Conv2d(8, 8, 3, padding=1, groups=8), [(1, 8, 6, 6)], 8 * 6 * 6 * 9),
    (nn.Conv1d(4, 6, 3), [(2, 4, 10)], 2 * 6 * 8 * 4 * 3),
    (nn.ConvTranspose2d(4, 6, 2, stride=2), [(1, 4, 5, 5)], 4 * 5 * 5 * 6 * 2 * 2),
    (nn.Linear(7, 5), [(2, 3, 7)], 2 * 3 * 7 * 5),
    (nn.GRU(3, 5, num_layers=2, batch_first=True), [(2, 7, 3)], 2 * 7 * (15 * 3 + 15 * 5 + 15 * 5 + 15 * 5)),
    (nn.LSTM(3, 5, bidirectional=True), [(7, 2, 3)], 2 * 7 * 2 * (20 * 3 + 20 * 5)),
    (nn.GRUCell(3, 5), [(4, 3), (4, 5)], 4 * (15 * 3 + 15 * 5)),
    (Calls(torch.matmul), [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
    (Calls(lambda a, b: torch.einsum("bij,bkj->bik", a, b)), [(2, 3, 4), (2, 5, 4)], 2 * 3 * 5 * 4),
    (
        Calls(lambda a, b: functional.scaled_dot_product_attention(a, b, b)),
        [(2, 4, 6, 8), (2, 4, 9, 8)],
        2 * 4 * 6 * 9 * (8 + 8),
    ),
    (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        [(2, 5, 8)],
        2 * 5 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 16) + 2 * 2 * 5 * 5 * 8,
    ),
]


@pytest.mark.parametrize(("module", "shapes", "expected"), LAYERS, ids=lambda value: type(value).__name__)
def test_counts_as_by_hand(module: Any, shapes: list[tuple[int, ...]], expected: int) -> None:
    found = counted(module, *shapes)
    assert found.macs == expected
    assert found.uncounted == ()


def test_products_with_zero_weights_are_left_out_of_the_nonzero_count() -> None:
    layer = nn.Linear(8, 4)
    with torch.no_grad():
        layer.weight[:, :6] = 0
    found = counted(layer, (3, 8))
    assert (found.macs, found.nonzero) == (3 * 8 * 4, 3 * 2 * 4)


def test_what_has_no_rule_is_listed_and_lowers_the_coverage() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Bilinear(3, 4, 2), nn.Linear(2, 2)

        def forward(self, a, b):  # type: ignore[no-untyped-def]
            return torch.relu(self.head(self.mix(a, b)))

    found = counted(Net(), (2, 3), (2, 4))
    assert [layer.operator for layer in found.uncounted] == ["bilinear"]
    assert found.coverage == 0.5
    assert dict(found.excluded) == {"relu": 1}


def test_the_workload_sets_free_sizes(tmp_path: Path) -> None:
    given = {"input": torch.zeros(1, 6, 4)}
    model = save_module(nn.Linear(4, 3), given, tmp_path, dynamic_axes={"input": {0: "batch", 1: "sequence"}})
    work = TorchExportFormat().work(model, Workload(batch=5, lengths=(("sequence", 11),)))
    assert work.macs == 5 * 11 * 4 * 3
    with pytest.raises(BadInput, match="sizes of sequence are free"):
        TorchExportFormat().work(model, Workload(batch=5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet", "Bert"])
def test_meets_the_golden_counts(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    if name == "ResNet":  # v1.5 at 224²
        module = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000))
        inputs, golden = [TensorSpec(name="pixel_values", dtype="float32", shape=(1, 3, 224, 224))], 4_089_184_256
    else:  # base, two classes, 128 tokens
        module = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2))
        inputs, golden = [TensorSpec(name="input_ids", dtype="int64", shape=(1, 128))], 11_174_217_216
    module.eval()
    found = count(export(module, describe(module, inputs)), inputs)
    assert (found.macs, found.uncounted) == (golden, ())


MORE_LAYERS: dict[str, tuple[Any, list[tuple[int, ...]], int]] = {
    "a convolution of volumes": (nn.Conv3d(2, 4, 3), [(1, 2, 5, 6, 7)], 4 * 3 * 4 * 5 * 2 * 27),
    "a dilated one": (nn.Conv2d(4, 6, 3, dilation=2, groups=2), [(2, 4, 9, 9)], 2 * 6 * 5 * 5 * 2 * 9),
    "a transposed one in groups": (nn.ConvTranspose1d(4, 6, 3, groups=2), [(1, 4, 5)], 4 * 5 * 3 * 3),
    "a layer without a bias": (nn.Linear(7, 5, bias=False), [(7,)], 35),
    "a matrix on a vector": (Calls(torch.mv), [(3, 4), (4,)], 12),
    "two vectors": (Calls(torch.dot), [(9,), (9,)], 9),
    "every row with every row": (Calls(torch.inner), [(2, 3, 4), (5, 4)], 2 * 3 * 5 * 4),
    "a sum of products": (Calls(lambda a, b: torch.addbmm(torch.zeros(3, 5), a, b)), [(2, 3, 4), (2, 4, 5)], 120),
    "a product and a sum": (Calls(lambda a, b: torch.addmm(torch.zeros(5), a, b)), [(3, 4), (4, 5)], 3 * 4 * 5),
    "products of batches": (Calls(lambda a, b: torch.baddbmm(torch.zeros(1), a, b)), [(2, 3, 4), (2, 4, 5)], 120),
    "an ellipsis": (Calls(lambda a, b: torch.einsum("...ij,jk->...ik", a, b)), [(6, 3, 4), (4, 5)], 6 * 3 * 4 * 5),
    "nothing to sum up": (Calls(lambda a, b: torch.einsum("ij,ij->ij", a, b)), [(3, 4), (3, 4)], 0),
    "a cell with two states": (nn.RNNCell(3, 5), [(4, 3), (4, 5)], 4 * (5 * 3 + 5 * 5)),
    "a plain recurrent net": (nn.RNN(3, 5, nonlinearity="relu"), [(7, 2, 3)], 7 * 2 * (5 * 3 + 5 * 5)),
    "a projected one": (nn.LSTM(3, 6, proj_size=2), [(7, 2, 3)], 7 * 2 * (24 * 3 + 24 * 2 + 2 * 6)),
}  # fmt: skip


@pytest.mark.parametrize("case", MORE_LAYERS)
def test_counts_odd_forms_as_by_hand(case: str) -> None:
    module, shapes, expected = MORE_LAYERS[case]
    found = counted(module, *shapes)
    assert (found.macs, found.uncounted) == (expected, ())


@pytest.mark.parametrize("transpose", [False, True])
def test_a_weight_is_found_behind_views_of_it(transpose: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]]))

        def forward(self, a):  # type: ignore[no-untyped-def]
            weight = self.weight.reshape(3, 2) if not transpose else self.weight.t()
            return a @ weight.contiguous()

    found = counted(Net(), (5, 3))
    assert (found.macs, found.nonzero) == (5 * 6, 5 * 3)


def test_products_of_three_have_no_single_order() -> None:
    found = counted(Calls(lambda a, b: torch.einsum("ij,jk,kl->il", a, b, b)), (2, 3), (3, 3))
    assert [layer.reason for layer in found.uncounted] == ["an Einsum of more than two operands has no single order"]
    assert found.coverage == 0.0


def test_sizes_that_the_program_does_not_take_are_refused() -> None:
    inputs = (TensorSpec(name="input", dtype="float32", shape=(2, 4)),)
    layer = nn.Linear(4, 3).eval()
    program = export(layer, describe(layer, inputs))
    assert count(program, inputs).macs == 2 * 4 * 3
    wrong = (TensorSpec(name="a", dtype="float32", shape=(2, 5)),)
    with pytest.raises(BadInput, match="can't be given inputs of these sizes") as caught:
        count(program, wrong)
    assert "\n" not in str(caught.value)
