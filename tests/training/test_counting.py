"""A pass that is counted and not computed takes what the pass itself takes."""

import pytest
import torch
from small_encoder import make_encoder, make_inputs
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fiber_cli.training.counting import Counting, Undrawn


def fused_loss(encoder, pixels, ids, mask):
    fused = encoder.fuse(encoder.image_stem(pixels), encoder.text_stem(ids, mask))
    return fused.text.sum() + fused.pyramid[-1].sum()


def test_operations_are_not_those_of_a_real_pass():
    encoder, inputs = make_encoder(), make_inputs()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as real:
        fused_loss(encoder, *inputs).backward()
    with sdpa_kernel(SDPBackend.MATH), Counting(encoder.parameters()) as counting:
        fused_loss(encoder, *inputs).backward()
    assert counting.operations == real.get_total_flops() > 0


def test_weights_are_read_or_changed():
    encoder, inputs = make_encoder(), make_inputs()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(torch.nan)
        with Counting(encoder.parameters()):
            loss = fused_loss(encoder, *inputs)
    assert loss.item() == 0.0
    assert all(torch.isnan(value).all() for _, value in encoder.named_parameters())
    assert before.keys() == encoder.state_dict().keys()


def test_memory_is_not_what_a_chain_of_layers_holds():
    """Every layer keeps its input for the backward pass, float32 (64, 256)."""
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(8)])
    one = 64 * 256 * 4
    inputs = torch.zeros(64, 256)
    with Counting(layers.parameters()) as held:
        loss = layers(inputs).sum()
    assert held.peak == pytest.approx((8 + 1) * one, rel=0.01)
    del loss
    with torch.no_grad(), Counting(layers.parameters()) as dropped:
        layers(inputs).sum()
    assert dropped.peak <= 3 * one


def test_activations_that_are_computed_again_take_as_much_as_those_that_are_kept():
    peaks, operations = [], []
    for again in (False, True):
        encoder, inputs = make_encoder(), make_inputs(lengths=(9,) * 16)
        encoder.checkpoint_activations = again
        for parameter in encoder.parameters():
            parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
        with Counting(encoder.parameters()) as counting:
            fused_loss(encoder, *inputs).backward()
        peaks.append(counting.peak)
        operations.append(counting.operations)
    assert peaks[1] < 0.7 * peaks[0]
    # A second forward pass is a third more, of what is computed again.
    assert 1.2 * operations[0] < operations[1] < 1.34 * operations[0]


def test_what_a_value_decides_is_not_computed():
    """Masks and choices of the inputs are real, those of outputs are of zeros."""
    linear, mask = nn.Linear(8, 4), torch.tensor([True, False, True])
    with Counting(linear.parameters()):
        out = linear(torch.ones(3, 8))
        assert out[mask].shape == (2, 4)
        assert out.argmax(1).tolist() == [0, 0, 0]
        assert int(mask.sum()) == 2


def test_operations_that_differ_in_their_settings_alone_are_taken_for_one():
    linear = nn.Linear(8, 6)
    with Counting(linear.parameters()):
        out = linear(torch.ones(4, 8))
        whole = out.long()
        assert [out.sum(0).shape, out.sum(1).shape, out.sum(1, keepdim=True).shape] == [(6,), (4,), (4, 1)]
        assert [out.to(kind).dtype for kind in (torch.float16, torch.float64)] == [torch.float16, torch.float64]
        assert [(whole * factor).dtype for factor in (2, 2.0)] == [torch.int64, torch.float32]
        assert [out.clone().stride(), out.T.clone().stride()] == [(6, 1), (1, 6)]
        for chosen in (1, 3):
            assert out[torch.arange(4) < chosen].shape == (chosen, 6)


def test_layers_that_are_alike_are_counted_once():
    layer, inputs = nn.Linear(8, 8), torch.ones(4, 8)
    with Counting(layer.parameters()) as once:
        layer(inputs)
    with Counting(layer.parameters()) as five_times:
        kept = [layer(inputs) for _ in range(5)]
    assert five_times.operations == 5 * once.operations > 0
    assert five_times.peak == 5 * once.peak == 5 * kept[0].numel() * 4


def test_a_network_is_drawn():
    with Undrawn():
        undrawn = nn.Linear(512, 512)
        nn.init.constant_(undrawn.weight, 3.0)
        small = nn.LayerNorm(8)
    assert not bool((undrawn.weight == 3.0).all())
    assert small.weight.tolist() == [1.0] * 8
