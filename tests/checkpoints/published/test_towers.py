"""The towers' tables cover every parameter of an encoder, below any prefixes."""

import torch

from fiber_cli.checkpoints.published.names import rename
from fiber_cli.checkpoints.published.towers import position_buffers, towers
from fiber_cli.model.config import BASE, TINY
from fiber_cli.model.fusion import FusedEncoder


def test_every_parameter_of_the_encoder_has_one_published_name():
    inverse = {ours: theirs for theirs, ours in towers(image="i.", text="t.").items()}
    with torch.device("meta"):
        names = [f"encoder.{name}" for name, _ in FusedEncoder(BASE).named_parameters()]
    published = {name: rename(name, inverse) for name in names}
    # The last norm of the image tower stands in the coarse stage only, which has it in a table of its own.
    assert [name for name, key in published.items() if key is None] == [
        "encoder.image.norm.weight",
        "encoder.image.norm.bias",
    ]
    keys = [key for key in published.values() if key is not None]
    assert len(set(keys)) == len(keys)
    for name, key in published.items():
        assert key is None or key.startswith("i." if name.startswith("encoder.image.") else "t.")


def test_position_buffers_are_one_a_block_and_the_text_positions():
    buffers = position_buffers(TINY, image="i.", text="t.")
    assert torch.equal(buffers.pop("t.embeddings.position_ids"), torch.arange(TINY.text.positions)[None])
    assert len(buffers) == sum(TINY.image.depths)
    cells = TINY.image.window**2
    for name, index in buffers.items():
        assert name.startswith("i.layers.")
        assert index.shape == (cells, cells)
        assert int(index.max()) == (2 * TINY.image.window - 1) ** 2 - 1
