"""Sizes of the two towers and of the fusion between them."""

import dataclasses
from dataclasses import dataclass, field
from typing import Self

from fiber_cli.errors import UserError


@dataclass(frozen=True)
class ImageConfig:
    """Swin encoder. `depths` and `heads` are per stage; stage s has `embed_dim * 2**s` channels."""

    embed_dim: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 12
    patch: int = 4
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    #: Windows keep their size on smaller maps, which are padded to it, and odd blocks shift them even where one
    #: window covers the map: so the fine stage of the published model, not its coarse stage.
    fixed_window: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of every stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))


@dataclass(frozen=True)
class TextConfig:
    """RoBERTa encoder."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    vocab: int = 50265
    positions: int = 514
    pad_id: int = 1
    dropout: float = 0.1
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class FiberConfig:
    """The whole model: towers, how many of their last blocks are fused, and the joint width.

    `image_size` is (height, width) in pixels that the model was last trained at; other sizes run too.
    """

    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fusion_layers: int = 6
    hidden: int = 768
    image_size: tuple[int, int] = (384, 384)
    #: LayerNorm on the image tokens that query the text (published "v3" and coarse code; "v2" has none).
    norm_image_query: bool = True
    itc_pooler: bool = True
    mlm_norm_eps: float = 1e-12
    #: Standard deviation of fresh linear weights, as published; None: 1 / sqrt(inputs), which narrow models trained
    #: from nothing need (at 0.02 their blocks start so near the identity that ITC stays on mean colours).
    init_std: float | None = 0.02
    #: Where fresh gates start, as published. At 0 the fusion behind them gets next to no gradient at first, of which
    #: Adam makes full steps: with large learning rates it has gone astray before a gate opens.
    gate_init: float = 0.0

    def __post_init__(self) -> None:
        blocks = sum(self.image.depths)
        if not 0 <= self.fusion_layers <= min(blocks, self.text.layers):
            raise UserError(
                f"fusion_layers={self.fusion_layers}: must be between 0 and the smaller of the image blocks "
                f"({blocks}) and the text layers ({self.text.layers})"
            )
        if len(self.image.heads) != len(self.image.depths):
            raise UserError(
                f"depths {self.image.depths} and image_heads {self.image.heads} name different numbers of stages"
            )
        for what, width, heads in [("text_hidden", self.text.hidden, self.text.heads)] + [
            (f"stage {s} channels", dim, heads) for s, (dim, heads) in enumerate(zip(self.image.dims, self.image.heads))
        ]:
            if width % heads:
                raise UserError(f"{what}={width} is not divisible by its {heads} attention heads")

    @property
    def fused_pairs(self) -> tuple[tuple[int, int, int], ...]:
        """(stage, block, text layer) of every fused step: the last blocks pair one to one with the last layers."""
        blocks = [(s, b) for s, depth in enumerate(self.image.depths) for b in range(depth)]
        layers = range(self.text.layers)
        first = len(blocks) - self.fusion_layers, self.text.layers - self.fusion_layers
        return tuple((s, b, layer) for (s, b), layer in zip(blocks[first[0] :], layers[first[1] :]))

    @property
    def multiple(self) -> int:
        """Image sides must be a multiple of this many pixels: the patch, halved maps after it."""
        return self.image.patch * 2 ** (len(self.image.depths) - 1)

    def at_image_size(self, size: tuple[int, int]) -> Self:
        """The same model for another image size: the window grows with the longer side, as published (12 at 384,
        18 at 576). UserError unless both sides are multiples of `multiple`."""
        if any(side % self.multiple for side in size):
            raise UserError(f"image size {size[0]}x{size[1]}: sides must be multiples of {self.multiple}")
        window = self.image.window * max(size) // max(self.image_size)
        return dataclasses.replace(self, image=dataclasses.replace(self.image, window=max(1, window)), image_size=size)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """Inverse of `to_dict`, after a trip through JSON. Unknown or missing keys raise TypeError."""
        image = ImageConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values["image"].items()})
        text, image_size = TextConfig(**values["text"]), tuple(values["image_size"])
        return cls(**values | {"image": image, "text": text, "image_size": image_size})


@dataclass(frozen=True)
class DetectorConfig:
    """What stands on the encoder in the fine stage: width of the feature pyramid and of the head's `blocks`, and the
    rate of DropBlock in the pyramid. log_scale: at first the alignment of places with tokens is exp(-log_scale) times
    their product; 0 as published, below it narrow heads begin to name things sooner."""

    channels: int = 256
    blocks: int = 6
    drop_block: float = 0.3
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.channels % 32:
            # A group of one channel has no spread on a level of one place.
            raise UserError(f"detector channels={self.channels}: must be a multiple of 32, for GroupNorm in 16 groups")


BASE = FiberConfig()
#: Trains from nothing in minutes on two CPU cores. Patches of 8 leave three stages, at the strides 8, 16 and 32.
TINY = FiberConfig(
    image=ImageConfig(embed_dim=64, depths=(2, 2, 1), heads=(2, 4, 8), window=4, patch=8, drop_path=0.0),
    text=TextConfig(layers=3, hidden=96, heads=4, intermediate=384, vocab=2000, positions=258, dropout=0.0),
    fusion_layers=2,
    hidden=256,
    image_size=(64, 64),
    # A tanh on the raw stream of so small a model is soon saturated.
    itc_pooler=False,
    init_std=None,
    gate_init=0.5,
)

PRESETS = {"tiny": TINY, "base": BASE}
