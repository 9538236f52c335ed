"""Structures of PyTorch modules: read off a changed one, made again of what the factory builds, nothing else built."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from trimtab.core import codec
from trimtab.core.errors import BadInput, Refused

torch = pytest.importorskip("torch")

from trimtab.formats.torch_structure import (  # noqa: E402 (after the skip)
    LAYERS,
    Edit,
    LayerSpec,
    OwnTensor,
    difference,
    restructure,
)

nn = torch.nn
SIZES = ("1d", "2d", "3d")


@dataclass(frozen=True)
class Kept:
    edits: tuple[Edit, ...]


def through_json(edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    return codec.loads(Kept, codec.dumps(Kept(edits))).edits


def shapes(module: Any) -> dict[str, Any]:
    return {name: (value.shape, value.dtype) for name, value in module.state_dict().items()}


def parameter(tensor: Any) -> Any:
    return nn.Parameter(tensor.detach().clone())


class Block(nn.Module):
    """Attention whose heads are counted in plain attributes, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scales = 4, 3, (1.0, 2.0)
        self.qkv = nn.Linear(12, 36)
        self.out = nn.Linear(12, 12)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).movedim(-3, 0).transpose(-2, -3)
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2))


class Text(nn.Module):
    """Embeds tokens and their positions, attends, and answers by a head that shares the embedding's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.positions = nn.Parameter(torch.randn(1, 8, 12))
        self.register_buffer("shift", torch.randn(12))
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Any) -> Any:
        x = self.embed(tokens) + self.positions[:, : tokens.shape[1]] + self.shift
        for block in self.blocks:
            x = block(x)
        return self.head(x if self.norm is None else self.norm(x))


class Image(nn.Module):
    """Convolutions with normalization, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(36, 5)

    def forward(self, image: Any) -> Any:
        return self.head(self.pool(self.body(image)).flatten(1))


class Memory(nn.Module):
    """A recurrent layer, whose constructor can't be read off its attributes, and torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(3, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, steps: Any) -> Any:
        found, _ = self.cells(steps)
        return self.attention(found, found, found)[0]


def prune_image(net: Any) -> None:
    """Keep channels 0, 2, 3 and 5 of the first convolution."""
    kept = torch.tensor([0, 2, 3, 5])
    first, norm, _, second = net.body
    first.weight, first.bias, first.out_channels = parameter(first.weight[kept]), parameter(first.bias[kept]), 4
    norm.weight, norm.bias, norm.num_features = parameter(norm.weight[kept]), parameter(norm.bias[kept]), 4
    norm.running_mean, norm.running_var = norm.running_mean[kept], norm.running_var[kept]
    second.weight, second.in_channels = parameter(second.weight[:, kept]), 4


def prune_image_but_not_its_attributes(net: Any) -> None:
    prune_image(net)
    net.body[0].out_channels, net.body[1].num_features = 6, 6


def factorize(net: Any) -> None:
    net.head = nn.Sequential(nn.Linear(36, 2, bias=False), nn.Linear(2, 5))


def factorize_with_names(net: Any) -> None:
    net.head = nn.Sequential(OrderedDict(reduce=nn.Linear(36, 2, bias=False), restore=nn.Linear(2, 5)))


def separate(net: Any) -> None:
    net.body[3] = nn.Sequential(nn.Conv2d(6, 6, (3, 1), groups=6), nn.Conv2d(6, 4, (1, 3)), nn.PReLU(4))


def replace_without_weights(net: Any) -> None:
    net.pool, net.body[2] = nn.AdaptiveAvgPool2d((3, 3)), nn.LeakyReLU(0.2)


def reorder(net: Any) -> None:
    old = dict(net.body.named_children())
    net.body = nn.Sequential(OrderedDict({name: old[name] for name in ("1", "0", "2", "3")}))
    net.body[0] = nn.BatchNorm2d(1)


def insert(net: Any) -> None:
    net.body.insert(3, nn.Dropout(0.3))


def shorten(net: Any) -> None:
    del net.body[2]


def to_double(net: Any) -> None:
    net.body[3].double()


def drop_a_block(net: Any) -> None:
    del net.blocks[1]


def prune_heads(net: Any) -> None:
    """Keep the first two of four heads in one block."""
    block = net.blocks[0]
    rows = torch.cat([torch.arange(6) + 12 * part for part in range(3)])
    block.qkv.weight, block.qkv.bias = parameter(block.qkv.weight[rows]), parameter(block.qkv.bias[rows])
    block.out.weight = parameter(block.out.weight[:, :6])
    block.qkv.out_features, block.out.in_features, block.num_heads = 18, 6, 2


def split_heads(net: Any) -> None:
    net.blocks[2].num_heads, net.blocks[2].head_dim, net.blocks[2].scales = 6, 2, (1.0, 2.0, 3.0)


def cut_positions(net: Any) -> None:
    net.positions = parameter(net.positions[:, :6])


def change_own_tensors(net: Any) -> None:
    del net.positions
    net.register_buffer("positions", torch.randn(1, 8, 12))
    net.register_buffer("shift", torch.randn(6, 12))


def drop_norm(net: Any) -> None:
    net.norm = None


def drop_whole_parts(net: Any) -> None:
    del net.blocks[0].scales
    net.norm = nn.Identity()
    net.blocks[1].gate = nn.Linear(2, 2)


def shrink_memory(net: Any) -> None:
    net.cells.hidden_size = 4
    for name, old in list(net.cells.named_parameters()):
        new = nn.GRU(3, 4).get_parameter(name)
        assert new.shape != old.shape
        setattr(net.cells, name, new)
    net.attention = nn.MultiheadAttention(4, 2, batch_first=True)


def widen_attention(net: Any) -> None:
    net.attention = nn.MultiheadAttention(8, 4, bias=False, add_bias_kv=True, add_zero_attn=True, batch_first=True)


IMAGES, TOKENS, STEPS = torch.rand(3, 1, 8, 8), torch.arange(12).reshape(2, 6), torch.rand(2, 5, 3)
CHANGES: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [
    *((Image, change, IMAGES) for change in (
        prune_image, prune_image_but_not_its_attributes, factorize, factorize_with_names, separate,
        replace_without_weights, insert, shorten,
    )),
    *((Text, change, TOKENS) for change in (
        drop_a_block, prune_heads, split_heads, cut_positions, change_own_tensors, drop_norm, drop_whole_parts,
    )),
    (Memory, shrink_memory, STEPS),
    (Memory, widen_attention, STEPS),
]  # fmt: skip


@pytest.mark.parametrize(("make", "change", "example"), CHANGES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_changed_module_made_again_answers_the_same_bit_for_bit(make: Any, change: Any, example: Any) -> None:
    changed = make().eval()
    change(changed)
    changed.eval()
    edits = difference(make(), changed)
    made = restructure(make().eval(), through_json(edits))
    assert shapes(made) == shapes(changed)
    made.load_state_dict(changed.state_dict())
    assert torch.equal(made(example), changed(example))
    assert not any(part.training for part in made.modules())
    assert edits != ()


@pytest.mark.parametrize("change", [reorder, to_double])
def test_order_and_type_of_weights_are_kept(change: Any) -> None:
    changed = Image()
    change(changed)
    made = restructure(Image(), through_json(difference(Image(), changed)))
    assert list(shapes(made).items()) == list(shapes(changed).items())


def weight_normed() -> Any:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3)), nn.ReLU())


def sharing() -> Any:
    one, act = Block(), nn.ReLU()
    return nn.Sequential(one, act, nn.Sequential(one, act), nn.Linear(12, 3))


def odd() -> Any:
    net = Block()
    net.nan, net.function, net.listed, net._private = float("nan"), torch.relu, [1, 2], 3
    net.register_buffer("mask", torch.tensor([0.0, float("nan"), float("-inf")]), persistent=False)
    return net


@pytest.mark.parametrize("make", [Image, Text, Memory, weight_normed, sharing, odd, lambda: nn.Linear(2, 3)])
def test_a_module_does_not_differ_from_its_copy_nor_from_another_of_the_same_factory(make: Any) -> None:
    module = make()
    assert difference(module, copy.deepcopy(module)) == ()
    assert difference(make(), make().eval()) == ()


def test_the_modules_that_are_compared_stay_as_they_are() -> None:
    built, changed = Image(), Image()
    prune_image(changed)
    before = [(repr(net), copy.deepcopy(net.state_dict())) for net in (built, changed)]
    difference(built, changed)
    for (text, state), net in zip(before, (built, changed), strict=True):
        assert repr(net) == text
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_resized_layer_is_one_edit_in_words_that_people_read() -> None:
    changed = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    changed[0] = nn.Linear(4, 3, bias=False)
    (edit,) = difference(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), changed)
    arguments = (("in_features", 4), ("out_features", 3), ("bias", False))
    assert edit == Edit(path="0", layer=LayerSpec(kind="Linear", arguments=arguments, dtype="float32"))


def test_a_module_may_be_replaced_as_a_whole() -> None:
    changed = nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 3))
    made = restructure(nn.Linear(6, 3).eval(), through_json(difference(nn.Linear(6, 3), changed)))
    assert repr(made) == repr(changed)
    assert not made.training


def test_what_was_shared_and_is_no_more_becomes_two_layers() -> None:
    changed = sharing()
    changed[2][1] = nn.ReLU(inplace=True)
    made = restructure(sharing(), difference(sharing(), changed))
    assert (made[1].inplace, made[2][1].inplace) == (False, True)
    assert made[0] is made[2][0]


def test_layers_that_shared_their_weights_may_part() -> None:
    def make() -> Any:
        one = nn.Linear(3, 3)
        return nn.Sequential(one, one)

    changed = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    made = restructure(make(), difference(make(), changed))
    made.load_state_dict(changed.state_dict())
    assert torch.equal(made(torch.ones(3)), changed(torch.ones(3)))


def test_modules_that_were_one_and_are_two_are_refused() -> None:
    changed = sharing()
    changed[2][0] = Block()
    with pytest.raises(Refused, match=r"2\.0 is a Block, which can't be rebuilt"):
        difference(sharing(), changed)


def test_what_stands_in_two_places_is_changed_once() -> None:
    changed = sharing()
    del changed[0].scales
    changed[0].num_heads, changed[0].head_dim = 2, 6
    made = restructure(sharing(), difference(sharing(), changed))
    assert made[0] is made[2][0]
    assert (made[0].num_heads, made[0].head_dim, hasattr(made[0], "scales")) == (2, 6, False)


def test_what_was_frozen_stays_frozen() -> None:
    def make() -> Any:
        net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        net[0].requires_grad_(False)
        return net

    changed = make()
    changed[0], changed[1], changed[2] = nn.Linear(4, 5), nn.PReLU(5), nn.Linear(5, 2)
    made = restructure(make(), difference(make(), changed))
    assert [value.requires_grad for value in made.parameters()] == [False, False, True, True, True]


def of_each_size(kind: str, *arguments: Any, **named: Any) -> list[Any]:
    return [getattr(nn, kind + size)(*arguments, **named) for size in SIZES]


EXAMPLES = [
    nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU())), nn.Identity(), nn.Flatten(0, 2), nn.Unflatten(1, (2, 3)),
    nn.Linear(3, 4, bias=False, dtype=torch.bfloat16), nn.Bilinear(2, 3, 4),
    nn.Embedding(5, 3, padding_idx=-2, max_norm=1.5), nn.EmbeddingBag(5, 3, mode="sum", padding_idx=1),
    nn.MultiheadAttention(8, 2, dropout=0.1, bias=False, add_bias_kv=True, kdim=4, vdim=6, batch_first=True),
    nn.LayerNorm((3, 4), eps=1e-6, bias=False), nn.LayerNorm(3, elementwise_affine=False), nn.RMSNorm(5, eps=1e-6),
    nn.GroupNorm(2, 4, affine=False), nn.LocalResponseNorm(3, alpha=0.1), nn.Dropout(0.1), nn.AlphaDropout(0.2, True),
    nn.FeatureAlphaDropout(0.3), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(3, 0.1),
    nn.RReLU(0.1, 0.2), nn.ELU(2.0), nn.CELU(0.5), nn.SELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.GLU(1),
    nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.Softplus(2.0), nn.Softsign(), nn.Softmax(1), nn.Softmax2d(),
    nn.LogSoftmax(-1), nn.Softmin(0), nn.Softshrink(0.1), nn.Hardshrink(0.2), nn.Tanhshrink(), nn.Hardsigmoid(),
    nn.Hardswish(), nn.Hardtanh(-2.0, 3.0), nn.Threshold(0.1, 2.0), nn.PixelShuffle(2), nn.PixelUnshuffle(3),
    nn.ChannelShuffle(2), nn.Upsample(scale_factor=(2.0, 1.0), mode="bilinear", align_corners=True),
    nn.UpsamplingNearest2d((4, 5)), nn.UpsamplingBilinear2d(scale_factor=2), nn.Fold((4, 5), 2), nn.Unfold((2, 3)),
    *of_each_size("Conv", 4, 6, 3, padding="same", dilation=2, groups=2, padding_mode="circular", bias=False),
    *of_each_size("ConvTranspose", 4, 6, 3, stride=2, output_padding=1, groups=2),
    *of_each_size("BatchNorm", 4, momentum=None, affine=False),
    *of_each_size("BatchNorm", 4, track_running_stats=False, dtype=torch.float64),
    *of_each_size("InstanceNorm", 4, affine=True, track_running_stats=True),
    *of_each_size("MaxPool", 3, 2, ceil_mode=True, return_indices=True), *of_each_size("AvgPool", 3, padding=1),
    *of_each_size("AdaptiveMaxPool", 3), *of_each_size("AdaptiveAvgPool", 2), nn.AdaptiveAvgPool2d((None, 7)),
    nn.MaxPool2d([2, 3]), *of_each_size("Dropout", 0.4),
    *of_each_size("ZeroPad", 1), *of_each_size("ConstantPad", 2, 0.5), *of_each_size("ReflectionPad", 1),
    *of_each_size("ReplicationPad", 2), *of_each_size("CircularPad", 1),
]  # fmt: skip


@pytest.mark.parametrize("layer", EXAMPLES, ids=lambda layer: type(layer).__name__)
def test_every_layer_of_the_list_is_made_again_from_its_attributes(layer: Any) -> None:
    def attributes(found: Any) -> Any:
        held = [{name: value for name, value in vars(part).items() if name[0] != "_"} for part in found.modules()]
        return json.loads(json.dumps(held))  # a list of sizes works as a tuple of them does

    changed = nn.Sequential(nn.Tanh())
    changed.append(layer)
    made = restructure(nn.Sequential(nn.Tanh()), through_json(difference(nn.Sequential(nn.Tanh()), changed)))[1]
    assert [type(part) for part in made.modules()] == [type(part) for part in layer.modules()]
    assert attributes(made) == attributes(layer)
    assert shapes(made) == shapes(layer)


def test_there_is_an_example_of_every_layer_of_the_list() -> None:
    assert {type(layer).__name__ for layer in EXAMPLES} == LAYERS
    assert all(issubclass(getattr(nn, name), nn.Module) for name in LAYERS)


@given(
    widths=some.lists(some.integers(2, 6), min_size=1, max_size=4),
    kept=some.lists(some.integers(1, 2), min_size=4, max_size=4),
    rank=some.integers(0, 2),
    normed=some.booleans(),
)
def test_any_network_takes_the_shapes_of_the_changed_one(
    widths: list[int], kept: list[int], rank: int, normed: bool
) -> None:
    def make(widths: list[int], rank: int = 0) -> Any:
        sizes = [1, *widths]
        layers: list[Any] = []
        for before, after in zip(sizes, widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if normed else []), nn.ReLU()]
        head = nn.Sequential(nn.Linear(sizes[-1], rank), nn.Linear(rank, 3)) if rank else nn.Linear(sizes[-1], 3)
        return nn.ModuleDict({"body": nn.Sequential(*layers), "head": head})

    changed = make([min(pair) for pair in zip(widths, kept, strict=False)], rank)
    edits = difference(make(widths), changed)
    made = restructure(make(widths), through_json(edits))
    assert repr(made) == repr(changed)
    assert shapes(made) == shapes(changed)
    assert difference(made, changed) == ()


class Linear(nn.Linear):
    """Has the name of one of torch's own layers."""


def with_a_hidden_layer(net: Any) -> None:
    net.head = nn.Sequential(nn.Linear(36, 5), nn.Sequential(Linear(5, 5)))


def with_an_attribute_that_lies(net: Any) -> None:
    net.head = nn.Sequential(nn.Linear(36, 5))
    net.head[0].weight = parameter(torch.rand(5, 30))


def with_a_function(net: Any) -> None:
    del net.pool
    net.pool = torch.relu


def with_a_size_that_is_no_number(net: Any) -> None:
    net.pool = nn.AvgPool2d(2)
    net.pool.kernel_size = torch.tensor(2)


def with_another_container(net: Any) -> None:
    net.body = nn.ModuleList(net.body)


def with_a_mask(net: Any) -> None:
    net.register_buffer("mask", torch.ones(3), persistent=False)


REFUSALS = [
    (lambda net: setattr(net, "head", Block()), r"head is a Block, which can't be rebuilt without its code: .*Conv2d"),
    (with_a_hidden_layer, r"head\.1\.0 is a Linear, which can't be rebuilt"),
    (with_an_attribute_that_lies, r"head\.0 is a Linear whose attributes describe other tensors than it has"),
    (with_a_function, r"pool has become a builtin_function_or_method, which can't be kept without pickle"),
    (with_a_size_that_is_no_number, r"pool is a AvgPool2d whose kernel_size is neither a number nor a text"),
    (with_another_container, "body is a ModuleList, which can't be rebuilt"),
    (with_a_mask, "mask is not what the factory builds, and a buffer that is not persistent is not among the weights"),
    (lambda net: setattr(net, "head", nn.LSTM(36, 5)), "head is a LSTM, which can't be rebuilt"),
]


@pytest.mark.parametrize(("change", "says"), REFUSALS)
def test_what_can_not_be_rebuilt_is_refused_by_name(change: Any, says: str) -> None:
    changed = Image()
    change(changed)
    with pytest.raises(Refused, match=says) as caught:
        difference(Image(), changed)
    assert "\n" not in str(caught.value)


def test_a_buffer_that_no_weights_hold_has_to_be_what_the_factory_builds() -> None:
    changed = odd()
    changed.mask[0] = 1.0
    with pytest.raises(Refused, match="mask is not what the factory builds"):
        difference(odd(), changed)


def test_a_module_of_another_class_is_refused() -> None:
    with pytest.raises(Refused, match="the module itself is a Text, which can't be rebuilt"):
        difference(Image(), Text())


def of(kind: str, **more: Any) -> Edit:
    return Edit(path="head", layer=LayerSpec(kind=kind, **more))


DAMAGED = {
    "a class of torch that is no layer": of("Module"),
    "a function beside the layers": of("functional"),
    "a container of anything": of("ModuleList"),
    "a layer that needs more": of("Linear"),
    "a layer that takes no such thing": of("ReLU", arguments=(("size", 3),)),
    "a size below zero": of("Linear", arguments=(("in_features", -3), ("out_features", 3))),
    "a size in words": of("Linear", arguments=(("in_features", "three"), ("out_features", 3))),
    "a type that is none": of("Linear", arguments=(("in_features", 3), ("out_features", 3)), dtype="load"),
    "a layer inside that is none": of("Sequential", children=(("0", LayerSpec(kind="Block")),)),
    "a name with a dot": of("Sequential", children=(("a.b", LayerSpec(kind="ReLU")),)),
    "a place that is not there": Edit(path="tail.conv", layer=LayerSpec(kind="ReLU")),
    "a place in a tensor": Edit(path="head.weight.grad", layer=LayerSpec(kind="ReLU")),
    "a part that is gone already": Edit(path="tail", removed=True),
    "the module itself": Edit(path="", removed=True),
    "a method": Edit(path="head", attributes=(("forward", 3),)),
    "what every module has": Edit(path="head", attributes=(("_modules", 3),)),
    "a number in the place of a layer": Edit(path="", attributes=(("head", 3),)),
    "attributes of what is not there": Edit(path="body.9", attributes=(("size", 3),)),
    "a tensor of no type": Edit(path="", tensors=(OwnTensor(name="a", shape=(1,), dtype="Tensor", parameter=False),)),
    "a tensor of a size below zero": Edit(
        path="", tensors=(OwnTensor(name="a", shape=(-1,), dtype="float32", parameter=True),)
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_an_edit_that_does_not_fit_is_one_clear_line(case: str) -> None:
    with pytest.raises(BadInput, match=r"holds can't be made .* damaged or of another version: make the") as caught:
        restructure(Image(), [DAMAGED[case]])
    assert "\n" not in str(caught.value)
