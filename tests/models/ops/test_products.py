"""Compare the products of a loop with torch's linear: the same gradients, for every way of requesting them."""

import pytest
import torch
from torch.nn import functional as F

from captioning.models.ops import linear, mixed, summed_at_once


def parts(*, bias: bool = True):
    weight, offset, inputs = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 4), (3,), (5, 2, 4)))
    return weight.requires_grad_(), offset.requires_grad_() if bias else None, inputs.requires_grad_()


def loop(multiply, weight, bias, inputs, *, steps: int = 3):
    """Run steps with ever fewer rows, where each step reads the result of the one before."""
    outputs = [inputs]
    for step in range(steps):
        outputs.append(F.pad(multiply(outputs[-1][step:], weight, bias).tanh(), (0, 1)))
    return [output.square().sum() for output in outputs[1:]]


def summed(*given, **options):
    with summed_at_once():
        return loop(linear, *given, **options)


def wanted(*given):
    return [part for part in given if part is not None]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_gradients_are_those_of_torch(bias, steps):
    given = parts(bias=bias)
    ours, theirs = sum(summed(*given, steps=steps)), sum(loop(F.linear, *given, steps=steps))
    torch.testing.assert_close(ours, theirs)
    found, expected = (torch.autograd.grad(total, wanted(*given)) for total in (ours, theirs))
    torch.testing.assert_close(found, expected)


def test_a_backward_pass_that_wants_other_gradients_leaves_nothing_behind():
    given = parts()
    ours, theirs = summed(*given), loop(F.linear, *given)
    for asked in ((2, [given[2]]), (0, [given[0]]), (1, wanted(*given)), (1, wanted(*given)), (2, [given[1]])):
        of, inputs = asked
        found, expected = (torch.autograd.grad(losses[of], inputs, retain_graph=True) for losses in (ours, theirs))
        torch.testing.assert_close(found, expected)


def test_a_matrix_has_one_product_for_its_gradient():
    weight, bias, inputs = parts()
    total = sum(summed(weight, bias, inputs))
    with torch.profiler.profile(record_shapes=True) as profile:
        total.backward()
    made = [event for event in profile.events() if event.name == "aten::mm" and event.input_shapes[0] == [3, 22]]
    assert len(made) == 1  # of 5 + 4 + 2 times 2 rows


def test_inputs_without_a_gradient_cost_no_product():
    weight, bias, inputs = parts()
    total = sum(summed(weight, bias, inputs.detach(), steps=1))
    with torch.profiler.profile(record_shapes=True) as profile:
        total.backward()
    made = [event.input_shapes[0] for event in profile.events() if event.name in ("aten::mm", "aten::zeros")]
    assert made == [[3, 10]]


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_has_no_gradient(frozen):
    given = parts()
    given[frozen].requires_grad_(False)
    asked = [part for part in given if part.requires_grad]
    found, expected = (torch.autograd.grad(sum(losses), asked) for losses in (summed(*given), loop(F.linear, *given)))
    torch.testing.assert_close(found, expected)


def test_two_matrices_and_two_loops_do_not_mix():
    (first, bias, inputs), (second, _, _) = parts(), parts()
    ours = sum(summed(first, bias, inputs)) + sum(summed(second, bias, inputs)) + sum(summed(first, bias, inputs))
    theirs = sum(2 * total for total in loop(F.linear, first, bias, inputs))
    theirs = theirs + sum(loop(F.linear, second, bias, inputs))
    asked = [first, second, bias, inputs]
    found, expected = (torch.autograd.grad(total, asked) for total in (ours, theirs))
    torch.testing.assert_close(found, expected)


def test_a_fault_inside_ends_the_sums(monkeypatch):
    weight, bias, inputs = parts()
    with pytest.raises(RuntimeError, match="shape"), summed_at_once():
        linear(inputs[..., :3], weight, bias)
    total = sum(loop(linear, weight, bias, inputs))
    assert "Step" not in str(total.grad_fn) and torch.autograd.grad(total, weight)[0].isfinite().all()


def test_mixed_precision_is_that_of_torch():
    weight, bias, inputs = (part.detach().float().requires_grad_() for part in parts())
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = sum(summed(weight, bias, inputs)), sum(loop(F.linear, weight, bias, inputs))
    found, expected = (torch.autograd.grad(total, [weight, bias, inputs]) for total in (ours, theirs))
    assert all(part.dtype == torch.float32 for part in found)
    for ours, theirs in zip(found, expected, strict=True):  # theirs sums the steps in bfloat16
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05 * float(theirs.abs().max()))


def test_the_type_of_products_is_autocast_s_where_it_is_on():
    types = (torch.float64, torch.float32, torch.bfloat16)
    assert [mixed("cpu", each) for each in types] == list(types)
    with torch.autocast("cpu", torch.bfloat16):
        assert [mixed("cpu", each) for each in types] == [torch.float64, torch.bfloat16, torch.bfloat16]
        assert mixed("meta", torch.float32) == torch.float32  # has no autocast
    with torch.autocast("cpu", torch.float16):
        assert mixed("cpu", torch.float32) == torch.float16


def test_float32_stays_so_without_autocast():
    weight, bias, inputs = (part.detach().float().requires_grad_() for part in parts())
    ours, theirs = sum(summed(weight, bias, inputs)), sum(loop(F.linear, weight, bias, inputs))
    asked = [weight, bias, inputs]
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, asked), torch.autograd.grad(theirs, asked))


def test_one_matrix_with_and_without_a_bias():
    weight, bias, inputs = parts()
    with summed_at_once():
        ours = linear(inputs, weight, bias), linear(inputs, weight), linear(inputs, weight, 2 * bias)
    theirs = F.linear(inputs, weight, bias), F.linear(inputs, weight), F.linear(inputs, weight, 2 * bias)
    torch.testing.assert_close(ours, theirs)
    asked = [weight, bias, inputs]
    made = [torch.autograd.grad(sum(part.square().sum() for part in parts), asked) for parts in (ours, theirs)]
    torch.testing.assert_close(*made)


def test_float64_stays_so_under_autocast():
    weight, bias, inputs = parts()
    with torch.autocast("cpu", torch.bfloat16), summed_at_once():
        torch.testing.assert_close(linear(inputs, weight, bias), F.linear(inputs, weight, bias))
