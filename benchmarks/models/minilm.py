"""The sentence encoder MiniLM-L6 with mean pooling and a linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

example_inputs = {
    "input_ids": torch.ones(1, 128, dtype=torch.int64),
    "attention_mask": torch.ones(1, 128, dtype=torch.int64),
}
dynamic_axes = {name: {0: "batch", 1: "tokens"} for name in example_inputs}
output_names = ("logits",)


class SentenceClassifier(nn.Module):
    """An encoder, the mean over its unmasked tokens, and a linear head (none: the mean itself)."""

    def __init__(self, classes: int | None) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        shape = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
        self.encoder = BertModel(shape, add_pooling_layer=False)
        self.head = nn.Identity() if classes is None else nn.Linear(384, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[:, :, None].to(states.dtype)
        return self.head((states * weights).sum(1) / weights.sum(1).clamp(min=1))


def build(classes: int | None = 5) -> nn.Module:
    """Return the classifier, ready for its weights."""
    return SentenceClassifier(classes)


def encoder() -> nn.Module:
    """Return the encoder alone with random weights (seed 0): it gives a text's mean state [N, 384]."""
    torch.manual_seed(0)
    return SentenceClassifier(None)
