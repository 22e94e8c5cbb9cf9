"""Few graphs serve all widths of texts that batches have."""

import pytest
import torch
from torch import nn

from fiber_cli.data.padding import text_width
from fiber_cli.model.config import TINY
from fiber_cli.model.fusion import FusedEncoder


@pytest.fixture
def graphs(monkeypatch):
    """How many graphs have been compiled; none of them in C++, which takes long."""
    from torch._dynamo.utils import counters

    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_module(module, backend="eager"))
    torch.compiler.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch.compiler.reset()


def test_every_width_of_texts_is_compiled_anew(graphs):
    torch.manual_seed(0)
    encoder = FusedEncoder(TINY).eval()
    encoder.compile_blocks()
    pixels = torch.rand(2, 3, *TINY.image_size)
    made = []
    with torch.no_grad():
        for longest in (7, 12, 37):
            width = text_width(longest, 60)
            ids = torch.randint(5, 100, (2, width))
            mask = torch.arange(width) < torch.tensor([[longest], [2]])
            encoder.fuse(encoder.image_stem(pixels), encoder.text_stem(ids, mask))
            made.append(graphs())
    # The second width is compiled as any width.
    assert 0 < made[0] < made[1] == made[2]
