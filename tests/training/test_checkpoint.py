from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.training.checkpoint import FILE, Epoch, Position, discard, restore, save

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

EPOCH = Epoch(
    number=1, steps=17, loss=0.1 + 0.2, score=1 / 3, rate=1e-3, optimizer="adam", seconds=0.7, cpu_s=1.3, waited_s=1e-5
)
POSITION = Position(
    epoch=1, batch=3, steps=20, loss_sum=2 / 3, spent=(0.1, 0.2, 0.3), brake=0.5, switched=True, best=1,
    history=(EPOCH,), notes=("went back",),
)  # fmt: skip


def tensors() -> dict[str, Any]:
    torch.manual_seed(0)
    narrow = torch.randn(3, 5).bfloat16()
    return {
        "narrow": narrow,
        "whole": torch.arange(4) - 2**40,
        "alone": torch.tensor(7),
        "turned": torch.randn(4, 6).t(),
        "images": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
        "shared/once": narrow,
        "no.elements": torch.zeros(0, 3),
    }


def state(optimizer: Any, module: Any) -> dict[str, Any]:
    for seed in range(3):
        torch.manual_seed(seed)
        for weight in module.parameters():
            weight.grad = torch.randn_like(weight)
        optimizer.step()
    return dict(optimizer.state_dict())


def bits(tensor: Any) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path / "c", "key", POSITION, {"module": tensors(), "random": {"state": torch.get_rng_state()}})
    position, parts = restore(tmp_path / "c", "key")
    assert position == POSITION
    assert set(parts["module"]) == set(tensors())
    for name, tensor in tensors().items():
        found = parts["module"][name]
        assert (found.dtype, found.shape, bits(found)) == (tensor.dtype, tensor.shape, bits(tensor)), name
    assert torch.equal(parts["random"]["state"], torch.get_rng_state())


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: torch.optim.Adam(weights, lr=1e-2, betas=(0.8, 0.99)),
        lambda weights: torch.optim.SGD(weights, lr=1e-2, momentum=0.9, nesterov=True),
        lambda weights: torch.optim.SGD(weights, lr=1e-2),
        lambda weights: torch.optim.RMSprop(weights, lr=1e-2, momentum=0.5),
    ],
)
def test_an_optimizer_takes_the_same_step_after_it(make: Any, tmp_path: Path) -> None:
    module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    optimizer = make(module.parameters())
    given = state(optimizer, module)
    save(tmp_path, "key", Position(), {"optimizer": given, "module": module.state_dict()})
    _, parts = restore(tmp_path, "key")
    other.load_state_dict(parts["module"])
    later = make(other.parameters())
    later.load_state_dict(parts["optimizer"])
    assert later.state_dict()["param_groups"] == given["param_groups"]
    for one, its in ((module, optimizer), (other, later)):
        torch.manual_seed(9)
        for weight in one.parameters():
            weight.grad = torch.randn_like(weight)
        its.step()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


def test_an_optimizer_that_took_no_step_comes_back_as_it_is(tmp_path: Path) -> None:
    optimizer = torch.optim.Adam(torch.nn.Linear(3, 2).parameters())
    save(tmp_path, "key", Position(), {"optimizer": optimizer.state_dict()})
    _, parts = restore(tmp_path, "key")
    assert parts["optimizer"] == optimizer.state_dict()


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert restore(tmp_path / "nowhere", "key") is None


def test_one_that_is_of_no_use_any_more_is_gone(tmp_path: Path) -> None:
    save(tmp_path, "key", POSITION, {"module": tensors()})
    discard(tmp_path)
    discard(tmp_path)
    assert restore(tmp_path, "key") is None


def test_one_of_another_fit_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "key", POSITION, {"module": tensors()})
    with pytest.raises(BadInput, match="is of another network, other data, another recipe or other code; delete it or"):
        restore(tmp_path, "other")


@pytest.mark.parametrize("damage", ["cut", "empty", "another file", "no position", "strange position"])
def test_a_damaged_one_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    save(tmp_path, "key", POSITION, {"module": tensors()})
    file = tmp_path / FILE
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "another file":
        safetensors.save_file({"x": torch.zeros(1)}, file)
    elif damage == "no position":
        safetensors.save_file({"x": torch.zeros(1)}, file, {"key": "key", "groups": "[]"})
    else:
        told = {"key": "key", "groups": "[]", "position": '{"epoch": "one"}'}
        safetensors.save_file({"x": torch.zeros(1)}, file, told)
    with pytest.raises(BadInput, match=r"is damaged .*; delete it and train anew") as caught:
        restore(tmp_path, "key")
    assert "\n" not in str(caught.value)


def test_one_that_was_killed_while_it_was_written_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, "key", POSITION, {"module": {"x": torch.zeros(3)}})

    def killed(flat: Any, path: Path, told: Any) -> None:
        Path(path).write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, "key", replace(POSITION, epoch=2), {"module": {"x": torch.ones(3)}})
    position, parts = restore(tmp_path, "key")
    assert (position.epoch, parts["module"]["x"].tolist()) == (1, [0, 0, 0])
    save(tmp_path, "key", replace(POSITION, epoch=3), {"module": {"x": torch.ones(3)}})
    assert restore(tmp_path, "key")[0].epoch == 3
    assert [path.name for path in tmp_path.iterdir()] == [FILE], "what was left over is gone"


def test_the_old_one_may_be_read_on_while_the_new_one_is_written(tmp_path: Path) -> None:
    save(tmp_path, "key", POSITION, {"module": {"x": torch.zeros(1000)}})
    _, parts = restore(tmp_path, "key")
    save(tmp_path, "key", POSITION, {"module": {"x": torch.ones(1000)}})
    assert float(parts["module"]["x"].sum()) == 0
