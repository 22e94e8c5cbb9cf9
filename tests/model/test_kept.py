"""What is kept between passes is little, and can be used by all of them."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fiber_cli.model.kept import Kept, constant


def test_more_is_kept_than_stated():
    asked = []

    def make(number):
        asked.append(number)
        return torch.full((1,), number)

    kept = Kept(make, 2)
    for number in (1, 2, 1, 3, 1, 2):
        assert kept(number) == number
    # 2 was the least recently used when 3 came.
    assert asked == [1, 2, 3, 2]
    assert len(kept) == 2


def test_what_inference_makes_is_of_no_use_to_training():
    kept = Kept(torch.ones, 4)
    with torch.inference_mode():
        kept(3)
    weight = torch.ones(3, requires_grad=True)
    (weight * kept(3)).sum().backward()
    assert weight.grad.tolist() == [1, 1, 1]


def test_tensors_without_values_are_kept():
    kept = Kept(torch.ones, 4)
    with FakeTensorMode():
        kept(3)
    assert len(kept) == 0
    assert kept(3).tolist() == [1, 1, 1]


def test_a_constant_is_made_anew():
    first = constant((1, 2.5), torch.float64, torch.device("cpu"))
    assert first.tolist() == [1, 2.5]
    assert constant((1, 2.5), torch.float64, torch.device("cpu")) is first
