"""Products of inference by oneDNN, as on processors whose vectors MKL does not use, and what keeps to PyTorch's."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from fiber_cli.model import linear as products
from fiber_cli.model.linear import Linear, linear
from fiber_cli.model.precision import prepared

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.fixture
def onednn(monkeypatch):
    """As on a processor that it is faster on; counts its products."""
    shapes = []
    compute = products._by_onednn

    def counted(x, *rest):
        shapes.append(tuple(x.shape))
        return compute(x, *rest)

    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "_by_onednn", counted)
    return shapes


@needs_onednn
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (2, 3, 5, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_differ_by_more_than_rounding(onednn, shape, bias):
    torch.manual_seed(0)
    layer = Linear(24, 40, bias=bias)
    x = torch.randn(shape)
    expected = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    with torch.inference_mode():
        out = layer(x)
    assert onednn == [shape]
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


@needs_onednn
@torch.no_grad()
def test_other_orders_of_memory_are_read_wrongly(onednn):
    torch.manual_seed(0)
    x, weight = torch.randn(24, 7).T, torch.randn(24, 40).T
    torch.testing.assert_close(linear(x, weight, None), x.contiguous() @ weight.T.contiguous(), rtol=1e-5, atol=1e-5)
    every_other = torch.randn(3, 10, 24)[:, ::2]
    expected = nn.functional.linear(every_other.contiguous(), weight)
    torch.testing.assert_close(linear(every_other, weight, None), expected, rtol=1e-5, atol=1e-5)
    assert len(onednn) == 2


@needs_onednn
@pytest.mark.parametrize(("inputs", "outputs"), [(24, 40), (40, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_differ_by_more_than_rounding(onednn, inputs, outputs, bias):
    """Of inputs, weights and bias, beside torch's own layer."""
    torch.manual_seed(0)
    layer, own = Linear(inputs, outputs, bias=bias), nn.Linear(inputs, outputs, bias=bias)
    own.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5, inputs)
    of_out = torch.randn(2, 5, outputs)
    gradients = []
    for each in (layer, own):
        leaf = x.clone().requires_grad_()
        each(leaf).backward(of_out)
        gradients.append([leaf.grad, *(parameter.grad for parameter in each.parameters())])
    assert len(onednn) == 3
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_frozen_weights_or_inputs_get_gradients(onednn):
    layer = Linear(4, 2)
    layer(torch.randn(3, 4)).sum().backward()
    assert len(onednn) == 2
    layer.requires_grad_(False)
    x = torch.randn(3, 4, requires_grad=True)
    layer(x).sum().backward()
    assert len(onednn) == 4
    assert x.grad.shape == x.shape
    assert not layer(torch.randn(3, 4)).requires_grad


@needs_onednn
def test_counted_operations_are_fewer_than_there_are(onednn):
    """FlopCounterMode knows PyTorch's own operators."""
    with FlopCounterMode(display=False) as counter:
        Linear(4, 2)(torch.randn(3, 4)).sum().backward()
    assert counter.get_total_flops() == 2 * 2 * 3 * 4 * 2
    assert onednn == []


@torch.no_grad()
def test_tensors_of_other_kinds_go_to_onednn(onednn):
    """Other types, under autocast, without values, without rows and a single one."""
    layer = Linear(4, 2)
    assert layer.double()(torch.randn(3, 4, dtype=torch.float64)).dtype == torch.float64
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 4)).dtype == torch.bfloat16
    assert layer(torch.randn(0, 4)).shape == (0, 2)
    assert layer(torch.randn(4)).shape == (2,)
    with FakeTensorMode():
        assert Linear(4, 2)(torch.randn(3, 4)).shape == (3, 2)
    assert copy.deepcopy(layer).to("meta")(torch.randn(3, 4, device="meta")).shape == (3, 2)
    assert onednn == []


@torch.no_grad()
def test_int8_leaves_linear_layers_in_float32():
    network = nn.Sequential(Linear(16, 8), nn.ReLU(), Linear(8, 4))
    quantised = prepared(network, "int8", CPU)
    assert not any(isinstance(module, nn.Linear) for module in quantised.modules())
    assert quantised(torch.randn(3, 16)).shape == (3, 4)
    assert type(network[0]) is Linear


@pytest.mark.parametrize(
    ("capability", "processor", "faster"),
    [
        ("AVX512", "vendor_id : AuthenticAMD", True),
        ("AVX2", "vendor_id : AuthenticAMD", False),
        ("AVX512", "vendor_id : GenuineIntel", False),
        ("DEFAULT", "", False),
    ],
)
def test_products_are_onednns_where_mkl_is_as_fast(monkeypatch, capability, processor, faster):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(products, "_processor", lambda: processor)
    assert products.onednn_is_faster.__wrapped__() is faster
