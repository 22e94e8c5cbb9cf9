"""A fused encoder of random weights that takes milliseconds, with its gates open, and inputs for it."""

import torch
from torch import Tensor

from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.fusion import FusedEncoder

SMALL = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(1, 1, 4, 2), heads=(1, 2, 4, 8), window=2, drop_path=0.0),
    text=TextConfig(layers=6, hidden=32, heads=4, intermediate=64, vocab=60, positions=40, dropout=0.0),
    fusion_layers=4,
    hidden=24,
    image_size=(64, 64),
)


def make_encoder(config: FiberConfig = SMALL, *, gates: float = 0.5, captioning: bool = False) -> FusedEncoder:
    """Weights far from their start, so that no part is next to the identity."""
    torch.manual_seed(0)
    encoder = FusedEncoder(config, captioning=captioning).eval()
    for name, parameter in encoder.named_parameters():
        if name.endswith(".alpha"):
            torch.nn.init.constant_(parameter, gates)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def make_inputs(
    config: FiberConfig = SMALL, lengths: tuple[int, ...] = (9, 4), size: tuple[int, int] = (64, 64)
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, and ids and mask of texts of these lengths."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(len(lengths), 3, *size, generator=generator)
    ids = torch.randint(4, config.text.vocab, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return pixels, ids.masked_fill(~mask, config.text.pad_id), mask
