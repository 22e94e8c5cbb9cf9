"""In what precision a network computes."""

import pytest
import torch
from torch import nn

from fiber_cli.errors import UserError
from fiber_cli.model.precision import AUTOCAST, PRECISIONS, allow_tf32, precision_context, prepared, settled

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Network(nn.Module):
    """Every kind of layer that a tower has, with a weight that two of them share and a buffer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.word = nn.Embedding(20, 8, padding_idx=1)
        self.up = nn.Linear(8, 32)
        self.down = nn.Linear(32, 8)
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("mean", torch.ones(8))

    def forward(self, pixels, ids):
        x = self.conv(pixels).flatten(2).transpose(1, 2) - self.mean
        x = self.norm(x + self.word(ids).mean(1, keepdim=True))
        return x + self.alpha * self.down(torch.tanh(self.up(x)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval()


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 16, 16, generator=generator), torch.randint(0, 20, (2, 5), generator=generator)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("int8", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_are_computed_in_another_precision_than_asked_for(precision, dtype):
    matrix = torch.ones(2, 2)
    with precision_context(precision, CPU):
        assert (matrix @ matrix).dtype == dtype
    assert (matrix @ matrix).dtype == torch.float32


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp32")])
def test_auto_is_not_what_the_device_has(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert settled("auto", CPU) == "fp32"
    assert settled("auto", torch.device("mps")) == "fp32"
    assert settled("auto", CUDA) == expected
    for precision in ("fp32", "bf16", "fp16"):
        assert settled(precision, CPU) == settled(precision, CUDA) == precision


@pytest.mark.parametrize("device", [CUDA, torch.device("mps")])
def test_int8_on_a_gpu_is_promised(device):
    assert settled("int8", CPU) == "int8"
    with pytest.raises(UserError, match=f"int8 is for CPUs, this is {device.type}: give bf16"):
        settled("int8", device)


def test_int8_without_its_library_ends_in_a_traceback(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert settled("fp32", CPU) == "fp32"
    with pytest.raises(UserError, match=r"int8 is computed by oneDNN, .*: give bf16 or fp32"):
        settled("int8", CPU)


@pytest.mark.parametrize("name", ["", "int4", "BF16", "float32"])
def test_an_unknown_precision_is_taken(name):
    with pytest.raises(UserError, match=f"precision '{name}': give one of {', '.join(PRECISIONS)}"):
        settled(name, CPU)


@pytest.mark.parametrize("precision", AUTOCAST)
def test_narrow_weights_give_other_numbers_than_autocast(network, precision):
    narrow = prepared(network, precision, CPU)
    assert narrow.up.weight.dtype == narrow.conv.bias.dtype == AUTOCAST[precision]
    assert narrow.norm.weight.dtype == narrow.word.weight.dtype == narrow.alpha.dtype == torch.float32
    with torch.inference_mode(), precision_context(precision, CPU):
        torch.testing.assert_close(narrow(*inputs()), network(*inputs()), atol=0, rtol=0)


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.05), ("fp16", 0.01), ("int8", 0.1)])
def test_a_low_precision_is_far_from_float32_or_changes_the_network(network, precision, error):
    expected = network(*inputs())
    low = prepared(network, precision, CPU)
    assert low is not network
    assert not low.training
    with torch.inference_mode(), precision_context(precision, CPU):
        assert (low(*inputs()) - expected).abs().max() < error
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    torch.testing.assert_close(network(*inputs()), expected, atol=0, rtol=0)
    assert low.word.weight.data_ptr() == network.word.weight.data_ptr(), "what is not rounded takes no more memory"


def test_float32_is_computed_by_the_network_itself(network):
    assert prepared(network, "fp32", CPU) is network


def test_tensorfloat32_is_not_as_it_is_set():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        allow_tf32(True)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
        allow_tf32(None)
        assert torch.get_float32_matmul_precision() == "high"
        allow_tf32(False)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
