"""torch-pruning alone, by the recipe of its own benchmark: group norms, global, then fine-tuning with SGD.

Its `benchmarks/main.py` prunes in 400 steps until the multiply-accumulates are --speed-up times fewer (2.11 in its
scripts), and trains up to 100 epochs: SGD of 0.01, momentum 0.9, weight decay 5e-4, a tenth of it after 60 % and 80 %.
"""

import torch
import torch_pruning
from lesson import Lesson
from torch import nn

STEPS, EPOCHS, MILESTONES = 400, 100, (0.6, 0.8)

if __name__ == "__main__":
    lesson = Lesson(__doc__, ("--speed-up", float, 2.11), ("--shift", int, 0))
    model, example = lesson.model, lesson.chosen[:1]
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        model, example, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2), iterative_steps=STEPS,
        pruning_ratio=1.0, global_pruning=True, max_pruning_ratio=0.99, ignored_layers=[last],
    )  # fmt: skip
    before, _ = torch_pruning.utils.count_ops_and_params(model, example)
    now = before
    for _ in range(STEPS):
        if before / now >= lesson.given.speed_up:
            break
        pruner.step()
        now, _ = torch_pruning.utils.count_ops_and_params(model, example)
    print(f"{before:,.0f} to {now:,.0f} multiply-accumulates", flush=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    lesson.train(
        model, optimizer, EPOCHS,
        lambda epochs: torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(part * epochs) for part in MILESTONES]),
        shift=lesson.given.shift,
    )  # fmt: skip
    lesson.export(model)
