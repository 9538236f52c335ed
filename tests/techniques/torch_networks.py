"""Factories of small PyTorch networks, whose layers are counted by hand in the tests that change their structure."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


class Mlp(nn.Module):
    """Hidden layers of given widths."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        sizes = (8, *widths, 4)
        self.layers = nn.ModuleList(nn.Linear(one, two) for one, two in pairwise(sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


class Cnn(nn.Module):
    """A stem, a block with a shortcut, a depthwise and a pointwise convolution, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.block = Block(16)
        self.depthwise, self.depthwise_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.pointwise, self.pointwise_norm = nn.Conv2d(16, 32, 1, stride=2, bias=False), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.block(torch.relu(self.stem_norm(self.stem(image))))
        x = torch.relu(self.depthwise_norm(self.depthwise(x)))
        x = torch.relu(self.pointwise_norm(self.pointwise(x)))
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """A convolution in four groups, group normalization, and a linear head behind all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped, self.norm = nn.Conv2d(16, 24, 3, padding=1, groups=4), nn.GroupNorm(2, 24)
        self.head = nn.Linear(24 * 16, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.grouped(torch.relu(self.stem(image)))))
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


class Attention(nn.Module):
    """Attention with one layer for queries, keys and values each; keys and values may have fewer heads."""

    def __init__(self, width: int, heads: int, shared: int = 1) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.shared = heads, width // heads, shared
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(width, width // shared), nn.Linear(width, width // shared)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(x).view(*x.shape[:2], heads, self.head_dim).transpose(1, 2)
            for layer, heads in (
                (self.query, self.num_heads),
                (self.key, self.num_heads // self.shared),
                (self.value, self.num_heads // self.shared),
            )
        )
        key, value = (each.repeat_interleave(self.shared, 1) for each in (key, value))
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(found.transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """Attention with one layer for queries, keys and values together."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        scores = torch.softmax(query @ key.transpose(2, 3) / self.head_dim**0.5, -1)
        return self.out((scores @ value).transpose(1, 2).flatten(2))


class Divided(nn.Module):
    """Attention whose heads divide the width of what it reads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        items, length, width = x.shape
        query, key, value = (
            layer(x).view(items, length, self.num_heads, width // self.num_heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(found.transpose(1, 2).reshape(items, length, width))


class Whole(nn.Module):
    """PyTorch's own attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


class Layer(nn.Module):
    """A transformer's layer."""

    def __init__(self, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.attention, self.norm1, self.norm2 = attention, nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(torch.nn.functional.gelu(self.wide(self.norm2(x))))


class Transformer(nn.Module):
    """Embeddings of 20 tokens and 6 positions, some layers, and a head behind their mean."""

    def __init__(self, *layers: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(20, width), nn.Parameter(torch.randn(6, width))
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(tokens) + self.positions).mean(1))


class Rigid(nn.Module):
    """Its first layer must have 32 outputs, or the code fails."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 32), nn.Linear(8, 24), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(self.first(x).view(-1, 4, 8).sum(1))))


class Frozen(nn.Module):
    """It computes without gradients, so that nothing of it can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Mlp(16)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class Tied(nn.Module):
    """Two layers share their weight, and the first one is free."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.enter, self.head = nn.Linear(8, 24), nn.Linear(24, 16), nn.Linear(16, 4)
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.enter(torch.relu(self.free(x))))
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))))


class Peeking(nn.Module):
    """Its code reads the weights of its layers itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.one.weight.T) @ self.two.weight.T


class Smooth(nn.Module):
    """Layers whose singular values fall fast: a convolution that jumps, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.wide, self.head = nn.Linear(24 * 16, 64), nn.Linear(64, 4)
        with torch.no_grad():
            core = torch.randn(4, 3, 3, 3)
            outer, inner = torch.randn(24, 4), torch.randn(16, 3)
            self.conv.weight.copy_(torch.einsum("abhw,oa,ib->oihw", core, outer, inner) / 10)
            self.wide.weight.copy_(torch.randn(64, 5) @ torch.randn(5, 384) / 20)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.wide(torch.relu(self.conv(image)).flatten(1))))


def _seeded(module: nn.Module) -> nn.Module:
    """Give the normalizations other values than ones and zeros, so that their channels differ."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module


def mlp() -> nn.Module:
    return Mlp(32, 24)


def odd() -> nn.Module:
    return Mlp(20, 40)


def cnn() -> nn.Module:
    return _seeded(Cnn())


def grouped() -> nn.Module:
    return _seeded(Grouped())


def transformer() -> nn.Module:
    return _seeded(Transformer(Layer(Attention(16, 4), 16), Layer(Attention(16, 4), 16)))


def fused() -> nn.Module:
    return Transformer(Layer(Fused(16, 4), 16))


def divided() -> nn.Module:
    return Transformer(Layer(Divided(16, 4), 16))


def whole() -> nn.Module:
    return Transformer(Layer(Whole(16, 4), 16))


def shared() -> nn.Module:
    return Transformer(Layer(Attention(16, 4, shared=2), 16))


def encoder() -> nn.Module:
    return Transformer(nn.TransformerEncoderLayer(16, 2, 64, batch_first=True))


def broad() -> nn.Module:
    """Wider than Python's sets of small numbers stay in order; the scale of each normalization tells its channel."""
    made = Transformer(Layer(Attention(768, 4), 768), width=768)
    for norm in (made.layers[0].norm1, made.layers[0].norm2):
        nn.init.constant_(norm.weight, 1.0)
        with torch.no_grad():
            norm.weight.copy_(torch.arange(768.0))
    return made


def rigid() -> nn.Module:
    return Rigid()


def frozen() -> nn.Module:
    return Frozen()


def tied() -> nn.Module:
    return Tied()


def smooth() -> nn.Module:
    return Smooth()


def narrow() -> nn.Module:
    return Mlp()


def peeking() -> nn.Module:
    return Peeking()
