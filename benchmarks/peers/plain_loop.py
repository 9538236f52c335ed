"""A plain PyTorch loop: Adam with its defaults, fp32, the default layout, batch 64; it stops at a target accuracy.

python benchmarks/peers/plain_loop.py DATA.npz --seed 0 --target 0.9 --epochs 6 prints one line of JSON: the accuracy
on the select items and the processor seconds of all threads after every quarter of an epoch, validation left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
import fashion  # the models lie beside

QUARTERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    torch.set_num_threads(2)
    with np.load(given.data) as held:
        pixels, labels, split = held["inputs"], held["labels"], held["split"]
    images = torch.from_numpy((pixels[:, None].astype(np.float32) / 255 - 0.1307) / 0.3081)
    answers = torch.from_numpy(labels.astype(np.int64))
    train, select = (torch.from_numpy(np.flatnonzero(split == name)) for name in ("train", "select"))
    model = fashion.resnet8()
    optimizer = torch.optim.Adam(model.parameters())
    steps, told, spent = len(train) // 64 // QUARTERS, [], 0.0
    for quarter in range(given.epochs * QUARTERS):
        if quarter % QUARTERS == 0:
            order = train[torch.randperm(len(train))]
        start = time.process_time()
        model.train()
        place = quarter % QUARTERS * steps
        for rows in order[place * 64 : (place + steps) * 64].split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[rows]), answers[rows]).backward()
            optimizer.step()
        spent += time.process_time() - start
        model.eval()
        with torch.inference_mode():
            found = torch.cat([model(images[rows]).argmax(1) for rows in select.split(500)])
        told.append({"cpu_s": spent, "accuracy": float((found == answers[select]).float().mean())})
        if told[-1]["accuracy"] >= given.target:
            break
    print(json.dumps(told))


if __name__ == "__main__":
    main()
