"""Tables of positions at another size: as the published code resizes those of windows, and only where they must be."""

import torch
from safetensors.torch import load_file
from torch import nn

from fiber_cli.checkpoints.positions import POSITION_EMBEDDING, fit_positions, resize_position_bias, window_of
from fiber_cli.checkpoints.weights import load_into, named_weights


def test_position_biases_resize_as_published(shared):
    tensors = load_file(shared / "golden" / "swin_resize.safetensors")
    inputs = [name for name in tensors if name.startswith("in.")]
    assert len(inputs) > 5
    for name in inputs:
        after = int(name.split(".")[1].split("to")[1])
        resized = resize_position_bias(tensors[name], after // 32)
        assert window_of(resized) == after // 32
        # Values up to 5, of which 16 are summed in an order that is the processor's.
        torch.testing.assert_close(resized, tensors["out." + name.removeprefix("in.")], atol=5e-6, rtol=0)


def test_position_biases_are_fitted_to_the_model():
    net = nn.ModuleDict({"attn": nn.Module(), "other": nn.Linear(2, 2)})
    net["attn"].relative_position_bias_table = nn.Parameter(torch.zeros(49, 2))
    weights = {name: value.clone() for name, value in named_weights(net).items()}
    weights["attn.relative_position_bias_table"] = torch.full((25, 2), 0.5)
    weights["unknown.relative_position_bias_table"] = torch.zeros(9, 2)
    fitted = fit_positions(weights, net)
    load_into(net, fitted, expect_unexpected=("unknown.",))
    torch.testing.assert_close(net["attn"].relative_position_bias_table.detach(), torch.full((49, 2), 0.5))
    for name in ("other.weight", "unknown.relative_position_bias_table"):
        assert fitted[name] is weights[name]


def test_the_embedding_of_positions_is_fitted_to_the_map():
    image = nn.ModuleDict({"position": nn.Module()})
    image["position"].table = nn.Parameter(torch.zeros(4, 6, 2))
    net = nn.ModuleDict({"encoder": nn.ModuleDict({"image": image})})
    for size in ((8, 8), (2, 12)):
        fitted = fit_positions({f"encoder.{POSITION_EMBEDDING}": torch.full((*size, 2), 0.5)}, net)
        load_into(net, fitted)
        torch.testing.assert_close(image["position"].table.detach(), torch.full((4, 6, 2), 0.5))
    same = torch.ones(4, 6, 2)
    assert fit_positions({f"encoder.{POSITION_EMBEDDING}": same}, net)[f"encoder.{POSITION_EMBEDDING}"] is same
