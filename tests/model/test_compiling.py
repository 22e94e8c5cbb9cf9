"""Compiled blocks compute what they do otherwise, by few graphs."""

import dataclasses

import pytest
import torch
from small_encoder import SMALL, make_encoder, make_inputs

from benchmarks.compile_graphs import Graphs
from fiber_cli.model.compiling import compile_blocks
from fiber_cli.model.fusion import ImageStem

# Three blocks, one of which is fused: each graph takes seconds.
FEW_BLOCKS = dataclasses.replace(
    SMALL,
    image=dataclasses.replace(SMALL.image, embed_dim=16, depths=(2, 1), heads=(1, 2), patch=8),
    text=dataclasses.replace(SMALL.text, layers=2),
    fusion_layers=1,
)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def outcome(encoder, size, lengths):
    """What is computed of pictures of a size and texts of some lengths, and its gradients."""
    pixels, ids, mask = make_inputs(FEW_BLOCKS, lengths, size)
    image = encoder.with_first_pair(encoder.image_stem(pixels))
    fused = encoder.fuse(ImageStem.joined([image]), encoder.text_stem(ids, mask), pooled=True)
    loss = fused.text.square().mean() + fused.pyramid[-1].square().mean() + encoder.image_top(image).square().mean()
    return loss, torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True)


def test_another_size_takes_another_graph(fresh_compiler):
    """Sizes that windows cover whole and others, square and not, the same numbers as without compiling."""
    plain, compiled = make_encoder(FEW_BLOCKS).train(), make_encoder(FEW_BLOCKS).train()
    graphs = Graphs()
    compile_blocks(compiled, any_size=True, backend=graphs)
    counts = []
    for size, lengths in (((96, 160), (9, 4)), ((64, 64), (16, 3)), ((128, 96), (8, 8)), ((160, 224), (5, 12))):
        expected = outcome(plain, size, lengths)
        torch.testing.assert_close(outcome(compiled, size, lengths), expected, atol=1e-5, rtol=1e-4)
        counts.append(graphs.count)
    assert counts[0] > 3
    assert counts[-1] == counts[0]
