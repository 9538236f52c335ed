"""How modules are called: which sizes are free, what outputs are called, what a program takes and gives."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Signature, TensorSpec

torch = pytest.importorskip("torch")

from trimtab.formats.torch_tracing import (  # noqa: E402 (after the skip)
    caller,
    describe,
    examples,
    export,
    first_line,
    forward_inputs,
    named_outputs,
    program_signature,
    quiet,
)


@pytest.fixture(autouse=True)
def few_threads() -> None:
    torch.set_num_threads(1)


class Calls(torch.nn.Module):
    """Calls a function on x and, if there is one, y."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x, y=None):  # type: ignore[no-untyped-def]
        return self.function(x) if y is None else self.function(x, y)


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def shapes(signature: Signature) -> tuple[list[tuple[int | str, ...]], list[tuple[int | str, ...]]]:
    return [s.shape for s in signature.inputs], [s.shape for s in signature.outputs]


class TestDescribe:
    def test_the_batch_is_free_where_every_output_grows_with_it(self):
        found = describe(Calls(lambda x: (x * 2, x.sum(1))), [spec("x", 3, 4)])
        assert shapes(found) == ([("batch", 4)], [("batch", 4), ("batch",)])

    def test_an_output_that_does_not_grow_fixes_the_batch(self):
        found = describe(Calls(lambda x: (x * 2, x.sum())), [spec("x", 3, 4)])
        assert shapes(found) == ([(3, 4)], [(3, 4), ()])

    def test_a_batch_that_is_built_in_stays_fixed(self):
        assert shapes(describe(Calls(lambda x: x.reshape(2, 3) * 2), [spec("x", 2, 3)])) == ([(2, 3)], [(2, 3)])

    def test_free_sizes_are_told_apart_and_named(self):
        module = Calls(lambda x: (x.transpose(1, 2), x.mean(1), x[:, :, 0].T))
        found = describe(module, [spec("x", "batch", "time", "width")])
        assert shapes(found)[1] == [("batch", "width", "time"), ("batch", "width"), ("time", "batch")]

    def test_a_size_that_grows_otherwise_is_free_without_a_name(self):
        found = describe(Calls(lambda x: x.repeat(1, 2)), [spec("x", "batch", "time")])
        assert shapes(found)[1] == [("batch", "?")]

    def test_of_several_inputs_the_same_name_is_the_same_size(self):
        found = describe(Calls(torch.add), [spec("x", "batch", "n"), spec("y", "batch", "n")])
        assert shapes(found)[1] == [("batch", "n")]

    def test_a_scalar_input_stays_one(self):
        found = describe(Calls(torch.mul), [spec("x", 3, 4), spec("y")])
        assert shapes(found) == ([("batch", 4), ()], [("batch", 4)])

    def test_bfloat16_answers_come_as_float32(self):
        found = describe(Calls(lambda x: x.to(torch.bfloat16)), [spec("x", 2, 3)])
        assert found.outputs[0].dtype == "float32"

    def test_more_free_sizes_than_can_be_told_apart_are_refused(self):
        with pytest.raises(BadInput, match=r"more than 4 free dimensions \(batch, a, b, c, d\).*fix some"):
            describe(Calls(lambda x: x), [spec("x", "batch", "a", "b", "c", "d")])

    def test_a_module_that_answers_nothing_is_refused(self):
        with pytest.raises(BadInput, match="returns no tensor; return a tensor"):
            describe(Calls(lambda x: 7), [spec("x", 2, 3)])

    def test_names_of_outputs_are_those_that_are_given(self):
        found = describe(Calls(lambda x: (x, x)), [spec("x", 2, 3)], ["a", "b"])
        assert [s.name for s in found.outputs] == ["a", "b"]
        with pytest.raises(BadInput, match="output_names gives 1 names, the module returns 2 tensors"):
            describe(Calls(lambda x: (x, x)), [spec("x", 2, 3)], ["a"])


class TestDescribeWithoutComputing:
    """Only shapes go through the module."""

    class Remembers(torch.nn.Module):
        """Keeps what it saw, in itself and in a list that all copies share."""

        def __init__(self, seen: list[str]) -> None:
            super().__init__()
            self.seen = seen.append
            self.cell = torch.nn.LSTM(3, 5, batch_first=True)
            self.register_buffer("calls", torch.zeros(1))
            self.last: Any = None

        def forward(self, x):  # type: ignore[no-untyped-def]
            self.seen(type(x).__name__)
            self.calls += 1
            self.last = x
            return self.cell(x)[0].to(torch.bfloat16), x.mean(2)

    def test_tells_what_computing_tells_and_leaves_the_module_alone(self):
        seen: list[str] = []
        module = self.Remembers(seen).eval()
        inputs = [spec("x", "batch", "time", 3)]
        found = describe(module, inputs, ["states", "mean"], compute=False)
        assert set(seen) == {"FakeTensor"}
        assert (float(module.calls), module.last) == (0.0, None)
        assert all(type(weight) is torch.nn.Parameter for weight in module.parameters())
        assert found == describe(module, inputs, ["states", "mean"])
        assert "Tensor" in seen

    @pytest.mark.parametrize(
        "function",
        [lambda x: x if x.sum() >= 0 else x[:, :1], lambda x: x.new_tensor(x.numpy()), lambda x: x[x[:, 0] == 0]],
        ids=["decides", "leaves torch", "selects"],
    )
    def test_a_module_that_looks_at_contents_is_run_after_all(self, function):
        inputs = [spec("x", 3, 4)]
        assert shapes(describe(Calls(function), inputs, compute=False)) == ([("batch", 4)], [("batch", 4)])

    def test_an_error_of_the_module_is_its_own(self):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            describe(torch.nn.Linear(5, 2), [spec("input", 3, 4)], compute=False)

    def test_tensors_of_the_code_itself_are_no_obstacle(self):
        constant = torch.ones(4)
        found = describe(Calls(lambda x: x * constant), [spec("x", 3, 4)], compute=False)
        assert shapes(found) == ([("batch", 4)], [("batch", 4)])


class TestOutputs:
    def test_are_named_by_their_place_or_key(self):
        one, two = torch.zeros(1), torch.ones(1)
        assert list(named_outputs(one)) == ["output"]
        assert list(named_outputs((one,))) == ["output"]
        assert list(named_outputs((one, [two, one]))) == ["output_0", "output_1_0", "output_1_1"]
        assert list(named_outputs({"logits": one, "loss": None})) == ["logits"]
        assert list(named_outputs({"a": {"b": one}, "c": (one, two)})) == ["a_b", "c_0", "c_1"]
        assert list(named_outputs((one, two), ["a", "b"])) == ["a", "b"]

    def test_what_is_no_tensor_is_left_out(self):
        assert named_outputs((None, 7, "text")) == {}


class TestInputs:
    def test_those_taken_and_those_needed(self):
        assert forward_inputs(Calls(None)) == (["x", "y"], ["x"])

        class Every(torch.nn.Module):
            def forward(self, a, *rest, b, c=1, **more):  # type: ignore[no-untyped-def]
                return a

        assert forward_inputs(Every()) == (["a", "b", "c"], ["a", "b"])

    def test_examples_are_zeros_of_the_right_kind(self):
        made = examples([spec("x", "batch", 3), spec("ids", "batch", "n", dtype="int64")], {"n": 7})
        assert {name: (tuple(t.shape), t.dtype) for name, t in made.items()} == {
            "x": ((2, 3), torch.float32),
            "ids": ((2, 7), torch.int64),
        }
        assert not any(t.any() for t in made.values())


class TestPrograms:
    def program(self, function: Any, *inputs: TensorSpec, batch: int | None = None) -> Any:
        module = Calls(function)
        return export(module, describe(module, inputs), batch)

    def test_names_of_free_sizes_are_kept_where_they_are_known(self):
        inputs = [spec("x", "batch", "time")]
        program = self.program(lambda x: x.sum(1), *inputs)
        assert shapes(program_signature(program, inputs)) == ([("batch", "time")], [("batch",)])
        (given,), (answer,) = shapes(program_signature(program))
        assert given[0] == answer[0] == "batch"
        assert given[1] not in ("batch", "time")
        assert isinstance(given[1], str)

    def test_a_batch_can_be_fixed(self):
        program = self.program(lambda x: x * 2, spec("x", "batch", 3), batch=4)
        assert shapes(program_signature(program)) == ([(4, 3)], [(4, 3)])

    def test_inputs_may_be_a_structure(self):
        class Structured(torch.nn.Module):
            def forward(self, pair, *, scale):  # type: ignore[no-untyped-def]
                return {"sum": (pair["a"] + pair["b"]) * scale}

        given = {"a": torch.ones(2), "b": torch.ones(2)}
        program = torch.export.export(Structured(), (given,), {"scale": torch.full((2,), 3.0)})
        signature = program_signature(program)
        assert len(signature.inputs) == 3
        feed = dict(
            zip((s.name for s in signature.inputs), (given["a"], given["b"], torch.full((2,), 3.0)), strict=True)
        )
        answer = caller(program, signature)(feed)
        assert answer["sum"].tolist() == [6.0, 6.0]

    def test_a_module_is_called_by_name_and_prepared_once(self):
        prepared = []

        def prepare(module: Any) -> Any:
            prepared.append(module)
            return module

        module = Calls(torch.sub)
        call = caller(module, describe(module, [spec("x", 2, 3), spec("y", 2, 3)]), prepare)
        for _ in range(2):
            assert call({"y": torch.ones(1, 3), "x": torch.zeros(1, 3)})["output"].tolist() == [[-1.0] * 3]
        assert prepared == [module]

    def test_a_program_without_inputs_has_nothing_to_feed(self):
        class Constant(torch.nn.Module):
            def forward(self):  # type: ignore[no-untyped-def]
                return torch.ones(2)

        with pytest.raises(BadInput, match="takes no tensors as inputs"):
            program_signature(torch.export.export(Constant(), ()))

    def test_values_that_decide_cannot_be_traced(self):
        with pytest.raises(BadInput, match=r"torch\.export can't trace this module \(.*avoid control flow") as caught:
            self.program(lambda x: x if x.sum() > 0 else -x, spec("x", 2, 3))
        assert "\n" not in str(caught.value)

    def test_a_size_that_the_code_fixes_is_named(self):
        module = Calls(lambda x: x.reshape(2, -1).sum(1, keepdim=True).expand(x.shape))
        signature = Signature(inputs=(spec("x", "batch", 3),), outputs=(spec("output", "batch", 3),))
        with pytest.raises(BadInput, match=r"torch\.export fixed the size of x axis 0"):
            export(module, signature)


class TestWords:
    def test_the_first_line_that_tells_something(self):
        assert first_line(ValueError("\n\n  wrong size \n more")) == "ValueError: wrong size"
        assert first_line(KeyError()) == "KeyError"
        assert len(first_line(ValueError("x" * 1000))) == len("ValueError: ") + 200

    def test_advice_is_silenced_and_comes_back(self):
        logger = logging.getLogger("torch.export")
        level = logger.level
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with pytest.raises(RuntimeError), quiet():
                warnings.warn("advice", stacklevel=1)
                assert logger.getEffectiveLevel() == logging.ERROR
                raise RuntimeError
            warnings.warn("heard", stacklevel=1)
        assert logger.level == level
        assert [str(warning.message) for warning in seen] == ["heard"]
