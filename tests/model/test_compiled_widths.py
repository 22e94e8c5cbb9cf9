"""Few graphs serve all widths of texts that batches have."""

import pytest
import torch

from fiber_cli.data.padding import text_width
from fiber_cli.model.compiling import compile_blocks
from fiber_cli.model.config import TINY
from fiber_cli.model.fusion import FusedEncoder


@pytest.fixture
def graphs():
    """How many graphs have been compiled; none of them in C++, which takes long."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch.compiler.reset()


def test_every_width_of_texts_is_compiled_anew(graphs):
    torch.manual_seed(0)
    encoder = FusedEncoder(TINY).eval()
    compile_blocks(encoder, any_size=False, backend="eager")
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
