"""What is found without a GPU: mixed devices, what waits, attention that a fused kernel would not compute as it is."""

import pytest
import torch
import torch.nn.functional as F
from stand_in_gpu import OnGpu, on_host, stand_in_gpu
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError
from torch.utils.checkpoint import checkpoint

from benchmarks.fake_gpu import (
    UnalignedError,
    autograd_and_autocast,
    backward,
    fake_gpu,
    gradients,
    is_aligned,
    placed,
)
from benchmarks.launches import SMALL, Launches, WaitError
from fiber_cli.model.kept import constant


def test_mixed_devices_are_not_found():
    with fake_gpu() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert (there + torch.tensor(1.0)).device == device
        with pytest.raises(FakeTensorDeviceMismatchError):
            there + here
        with pytest.raises(DataDependentOutputException):
            there.sum().item()
    with stand_in_gpu() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert on_host(there + torch.tensor(1.0)).tolist() == [2, 2, 2]
        assert there.sum().item() == 3
        with pytest.raises(AssertionError, match="on the device"):
            there + here
        with pytest.raises(AssertionError, match="by numbers on the device"):
            here[there > 0]


def test_copies_that_wait_are_not_found():
    with fake_gpu() as device, Launches(refused=True) as launches:
        torch.ones(3).to(device, non_blocking=True)
        assert launches.copies == [("to cuda", 12)]
        there = torch.ones(3, device=device)
        for wait in (
            lambda: torch.ones(3).to(device),
            lambda: torch.ones(SMALL).to(device, non_blocking=True),
            lambda: there.to("cpu", non_blocking=True),
            lambda: there[torch.tensor([0, 1])],
            lambda: torch.tensor([1.0], device=device),
            lambda: there.nonzero(),
        ):
            with pytest.raises(WaitError):
                wait()


def test_views_are_counted_or_operations_are_not():
    with fake_gpu() as device:
        x = torch.ones(4, 6, device=device)
        with Launches() as launches:
            x.T[:2].unsqueeze(0).detach()
            assert launches.total == 0
            (x @ x.T).add_(1).relu()
    assert launches.counts == {"aten.mm.default": 1, "aten.add_.Tensor": 1, "aten.relu.default": 1}


class Doubled(torch.autograd.Function):
    """Two results, one of which nothing may come from."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x, 3 * x

    @staticmethod
    def backward(ctx, of_double, of_triple):
        return 2 * of_double + 3 * of_triple


def loss_of(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """With parameters used twice, results broadcast and let go, and a part that is computed again."""
    hidden = network[0](x)
    doubled, _ = Doubled.apply(hidden)
    again = checkpoint(lambda h: network[0](F.gelu(h)), doubled, use_reentrant=False)
    first, second = again.split(2, 1)
    return (network[1](first + second.mean(1, keepdim=True)) * network[2]).square().sum() + hidden[0].exp().sum()


def test_the_backward_pass_has_other_gradients_than_pytorchs():
    torch.manual_seed(0)
    network = nn.ModuleList([nn.Linear(4, 4), nn.Linear(2, 3)])
    network.append(nn.ParameterList([nn.Parameter(torch.randn(1, 3))]))
    parts = [network[0], network[1], network[2][0]]
    x = torch.randn(5, 4, requires_grad=True)
    leaves = [x, *network.parameters()]
    expected = torch.autograd.grad(loss_of(parts, x), leaves)
    with autograd_and_autocast():
        torch.testing.assert_close(gradients(loss_of(parts, x), leaves), expected)
        for _ in range(2):
            backward(loss_of(parts, x))
    for leaf, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, 2 * gradient)


def test_what_is_kept_for_a_fake_gpu_is_kept_for_others():
    for pretended in (fake_gpu, stand_in_gpu):
        with pretended() as device:
            made = constant((3.0,), torch.float32, device)
            assert constant((3.0,), torch.float32, device) is made
            assert made.device == device
    with stand_in_gpu() as device:
        assert isinstance(constant((3.0,), torch.float32, device), OnGpu)
    assert constant((3.0,), torch.float32, torch.device("cpu")).tolist() == [3]


def test_autocast_rounds_nothing():
    with fake_gpu() as device:
        layer = placed(lambda: nn.Linear(8, 8))
        with torch.autocast("cuda", torch.bfloat16):
            assert layer(torch.ones(2, 8, device=device)).dtype == torch.bfloat16


def test_attention_that_a_fused_kernel_refuses_is_not_found():
    with fake_gpu() as device:
        narrow = torch.ones(1, 2, 8, 12, device=device, dtype=torch.bfloat16)
        with pytest.raises(UnalignedError, match="12 channels"):
            F.scaled_dot_product_attention(narrow, narrow, narrow)
        query = torch.ones(1, 2, 49, 32, device=device)
        for width, copies in ((49, 1), (56, 0)):
            bias = torch.zeros(1, 2, 49, width, device=device)[..., :49]
            assert is_aligned(bias) == (not copies)
            with Launches() as launches:
                F.scaled_dot_product_attention(query, query, query, attn_mask=bias)
            assert launches.counts["aten.constant_pad_nd.default"] == copies
