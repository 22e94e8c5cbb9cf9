"""Sizes of the two towers, of the fusion between them and of the detector on top."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, get_args

from fiber_cli.errors import UserError

#: Largest value of a size that a model can have, by its name: beyond them memory ends before a word about it.
_LARGEST = {
    "depths": 1000,
    "layers": 1000,
    "blocks": 1000,
    "heads": 1024,
    "window": 1024,
    "patch": 1024,
    "image_size": 2**16,
    "embed_dim": 2**16,
    "hidden": 2**16,
    "intermediate": 2**18,
    "channels": 2**16,
    "positions": 2**20,
    "vocab": 2**24,
    "pad_id": 2**20,
    "sampled_regions": 2**16,
}
#: Sizes that may be 0.
_MAY_BE_ZERO = ("depths", "pad_id")
_MOST_STAGES = 8


Stem = Literal["patch", "convolutions"]
#: Where the towers look at each other: in their own last blocks, or in layers that stand on both of them, as in METER.
FusionPlace = Literal["backbone", "top"]
#: How a block looks at the other modality: by an attention beside its own, or by one attention over both.
FusionAttention = Literal["co", "merged"]
#: What finds boxes on the feature pyramid: ATSS with DynamicHead as published, or torchvision's heads.
HeadKind = Literal["atss", "retinanet", "faster_rcnn"]
#: Whether the detection head fuses text and image too, as GLIP's does.
HeadFusion = Literal["none", "deep"]
#: A convolutional stem halves its map until a patch is one token.
_PATCHES_OF_CONVOLUTIONS = (4, 8, 16, 32)
#: Channels of a convolutional stem that are normalised together.
STEM_GROUP = 8


class BlockPosition(NamedTuple):
    """An image block, by the number of its stage and its number in that stage."""

    stage: int
    block: int


class FusedPair(NamedTuple):
    """An image block and the text layer that it is fused with."""

    stage: int
    block: int
    layer: int


@dataclass(frozen=True)
class ImageConfig:
    """Swin encoder. `depths` and `heads` are per stage; stage s has `embed_dim * 2**s` channels."""

    embed_dim: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 12
    patch: int = 4
    #: How pixels become tokens: a linear map of each patch, as published, or convolutions.
    stem: Stem = "patch"
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    #: A learned embedding of its place is added to every token, Swin's option `ape`. Without it windows tell where
    #: tokens lie to each other, and little of where in the image.
    position_embedding: bool = False
    #: Windows keep their size on smaller maps, which are padded to it, and odd blocks shift them even where one
    #: window covers the map: so the fine stage of the published model, not its coarse stage.
    fixed_window: bool = False
    #: Windows of every stage, where stages differ in them as in Swin-S3; None: `window` in all.
    stage_windows: tuple[int, ...] | None = None

    def window_of(self, stage: int) -> int:
        """Tokens along a side of a stage's windows."""
        if self.stage_windows is None:
            return self.window
        return self.stage_windows[stage]

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of every stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between neighbouring tokens of every stage."""
        return tuple(self.patch * 2**stage for stage in range(len(self.depths)))

    @property
    def block_positions(self) -> tuple[BlockPosition, ...]:
        """Every block, in the order in which they run."""
        positions = []
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                positions.append(BlockPosition(stage, block))
        return tuple(positions)


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

    def checked(self) -> Self:
        """Itself; UserError for a size that a text tower cannot have."""
        _check_numbers(self)
        _check_heads("hidden", self.hidden, self.heads)
        return self


@dataclass(frozen=True)
class FiberConfig:
    """The whole model: towers, how many of their last blocks are fused, and the joint width.

    `image_size` is (height, width) in pixels that the model was last trained at; other sizes run too.
    """

    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fusion_layers: int = 6
    #: In the backbone `fusion_layers` are blocks of the towers, on top so many layers of each modality's own.
    fusion: FusionPlace = "backbone"
    #: Of fusion in the backbone; on top it is co-attention.
    fusion_attention: FusionAttention = "co"
    #: Whether fusion in the backbone has gates (see `gate_init`), as published; without them it is on from the start.
    fusion_gate: bool = True
    hidden: int = 768
    image_size: tuple[int, int] = (384, 384)
    #: LayerNorm on the image tokens that query the text (published "v3" and coarse code; "v2" has none).
    norm_image_query: bool = True
    #: LayerNorm on the image's raw stream where text layers and poolers of pairs read it; published: none. Behind
    #: towers that are trained from nothing the stream grows until it saturates the poolers' tanh, and pairs cannot be
    #: judged.
    norm_image_memory: bool = False
    #: Dense layer and tanh in the poolers of pairs, and of ITC's features.
    pair_pooler: bool = True
    itc_pooler: bool = True
    mlm_norm_eps: float = 1e-12
    #: Standard deviation of fresh linear weights, as published; None: 1 / sqrt(inputs), which narrow models trained
    #: from nothing need (at 0.02 their blocks start so near the identity that ITC stays on mean colours).
    init_std: float | None = 0.02
    #: Where fresh gates start, as published. At 0 the fusion behind them gets next to no gradient at first, of which
    #: Adam makes full steps: with large learning rates it has gone astray before a gate opens.
    gate_init: float = 0.0

    def __post_init__(self) -> None:
        for section in (self, self.image, self.text):
            _check_numbers(section)
        if len(self.image_size) != 2:
            raise UserError(f"image_size={self.image_size!r}: must be height and width")
        self._check_fusion()
        self._check_depths()
        self._check_stem()
        _check_heads("text_hidden", self.text.hidden, self.text.heads)
        stages = zip(self.image.dims, self.image.heads, strict=True)
        for stage, (dim, heads) in enumerate(stages):
            _check_heads(f"stage {stage} channels", dim, heads)

    def _check_fusion(self) -> None:
        _check_choice("fusion", self.fusion, FusionPlace)
        _check_choice("fusion_attention", self.fusion_attention, FusionAttention)
        if self.fusion == "backbone":
            return
        if self.fusion_attention != "co":
            raise UserError(
                f"fusion=top with fusion_attention={self.fusion_attention}: layers on top look at each other by "
                "co-attention; leave fusion_attention at co, or set fusion to backbone"
            )
        _check_heads("hidden", self.hidden, self.text.heads)

    def _check_depths(self) -> None:
        blocks = sum(self.image.depths)
        most = min(blocks, self.text.layers)
        range_in_words = f"the smaller of the image blocks ({blocks}) and the text layers ({self.text.layers})"
        if self.fusion == "top":
            most = _LARGEST["layers"]
            range_in_words = f"{most:,}"
        if type(self.fusion_layers) is not int or not 0 <= self.fusion_layers <= most:
            raise UserError(f"fusion_layers={self.fusion_layers}: must be between 0 and {range_in_words}")
        if len(self.image.heads) != len(self.image.depths):
            raise UserError(
                f"depths {self.image.depths} and image_heads {self.image.heads} name different numbers of stages"
            )
        windows = self.image.stage_windows
        if windows is None:
            return
        if len(windows) != len(self.image.depths):
            raise UserError(f"stage_windows {windows} and depths {self.image.depths} name different numbers of stages")
        for window in windows:
            _check_size("window", window)

    def _check_stem(self) -> None:
        image = self.image
        _check_choice("stem", image.stem, Stem)
        if image.stem == "patch":
            return
        if image.patch not in _PATCHES_OF_CONVOLUTIONS:
            raise UserError(
                f"stem=convolutions with patch={image.patch}: the patch must be one of "
                f"{', '.join(map(str, _PATCHES_OF_CONVOLUTIONS))} pixels"
            )
        # The first of the convolutions has the fewest channels.
        multiple = STEM_GROUP * image.patch // 2
        if image.embed_dim % multiple:
            raise UserError(
                f"stem=convolutions with patch={image.patch} and embed_dim={image.embed_dim}: must be a multiple of "
                f"{multiple}"
            )

    @property
    def fused_pairs(self) -> tuple[FusedPair, ...]:
        """Every fused step in the backbone, in order: the last image blocks pair one to one with the last text
        layers."""
        if self.top_layers:
            return ()
        blocks = self.image.block_positions
        fused_blocks = blocks[len(blocks) - self.fusion_layers :]
        first_layer = self.text.layers - self.fusion_layers
        pairs = []
        for number, (stage, block) in enumerate(fused_blocks):
            pairs.append(FusedPair(stage, block, first_layer + number))
        return tuple(pairs)

    @property
    def top_layers(self) -> int:
        """Layers of each modality that stand on the towers; 0 for fusion in the backbone or none."""
        return self.fusion_layers if self.fusion == "top" else 0

    @property
    def decoder_layers(self) -> int:
        """Text layers that a caption's tokens go through."""
        return self.text.layers + self.top_layers

    @property
    def fused_image_dim(self) -> int:
        """Channels of the last map of a fused pass."""
        return self.hidden if self.top_layers else self.image.dims[-1]

    @property
    def fused_text_dim(self) -> int:
        """Channels of the tokens of a fused pass."""
        return self.hidden if self.top_layers else self.text.hidden

    @property
    def multiple(self) -> int:
        """Image sides must be a multiple of this many pixels: the patch, halved maps after it."""
        return self.image.strides[-1]

    def at_image_size(self, size: tuple[int, int]) -> Self:
        """The same model for another image size: the windows grow with the longer side, as published (12 at 384,
        18 at 576). UserError unless both sides are multiples of `multiple`."""
        if any(side % self.multiple for side in size):
            raise UserError(f"image size {size[0]}x{size[1]}: sides must be multiples of {self.multiple}")
        before, after = max(self.image_size), max(size)
        stage_windows = self.image.stage_windows
        if stage_windows is not None:
            stage_windows = tuple(max(1, window * after // before) for window in stage_windows)
        window = max(1, self.image.window * after // before)
        image = dataclasses.replace(self.image, window=window, stage_windows=stage_windows)
        return dataclasses.replace(self, image=image, image_size=size)

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`, after a trip through JSON. An unknown name raises TypeError; a missing "image",
        "text" or "image_size" KeyError; others that are missing take their defaults."""
        image = dict(values["image"])
        for name, value in image.items():
            if isinstance(value, list):
                image[name] = tuple(value)
        parsed = dict(values)
        parsed["image"] = ImageConfig(**image)
        parsed["text"] = TextConfig(**values["text"])
        parsed["image_size"] = tuple(values["image_size"])
        return cls(**parsed)


def _check_numbers(section: Any) -> None:
    """UserError for a size that is no whole number or out of range, for other numbers that are not finite, and for
    values of another type."""
    for each in dataclasses.fields(section):
        value = getattr(section, each.name)
        if each.name in _LARGEST:
            listed = value if isinstance(value, tuple) else (value,)
            if len(listed) > _MOST_STAGES:
                raise UserError(f"{each.name}: {len(listed)} values; at most {_MOST_STAGES} are possible")
            for size in listed:
                _check_size(each.name, size)
        elif isinstance(each.default, bool) and not isinstance(value, bool):
            raise UserError(f"{each.name}={value!r}: must be true or false")
        elif isinstance(each.default, float) and value is not None and not _is_finite(value):
            raise UserError(f"{each.name}={value!r}: must be a finite number")


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise UserError(f"{name}={value!r:.40}: must be one of {', '.join(get_args(choices))}")


def _check_size(name: str, size: object) -> None:
    least = 0 if name in _MAY_BE_ZERO else 1
    if type(size) is not int or not least <= size <= _LARGEST[name]:
        raise UserError(f"{name}={size!r:.40}: must be a whole number from {least} to {_LARGEST[name]:,}")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and -math.inf < value < math.inf


def _check_heads(name: str, width: int, heads: int) -> None:
    if width % heads:
        raise UserError(f"{name}={width} is not divisible by its {heads} attention heads")


@dataclass(frozen=True)
class DetectorConfig:
    """What stands on the encoder in the fine stage: width of the feature pyramid and of the head, and the rate of
    DropBlock in the pyramid. log_scale: at first the alignment of regions with tokens is exp(-log_scale) times their
    product; 0 as published, below it narrow heads begin to name things sooner. blocks, fusion: DynamicHead's blocks, of
    the head "atss" alone, and what stands before each. sampled_regions: how many regions of an image the second stage
    of "faster_rcnn" learns from."""

    channels: int = 256
    blocks: int = 6
    drop_block: float = 0.3
    log_scale: float = 0.0
    fusion: HeadFusion = "none"
    head: HeadKind = "atss"
    sampled_regions: int = 512

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_choice("head_fusion", self.fusion, HeadFusion)
        _check_choice("head", self.head, HeadKind)
        problem = self.problem_of_head(self.head, self.blocks, self.fusion, self.sampled_regions)
        if problem is not None:
            raise UserError(f"task.head={problem}")
        if self.channels % 32:
            # A group of one channel has no spread on a level of one position.
            raise UserError(f"detector channels={self.channels}: must be a multiple of 32, for GroupNorm in 16 groups")

    @classmethod
    def problem_of_head(cls, head: HeadKind, blocks: int, fusion: HeadFusion, sampled_regions: int) -> str | None:
        """What is wrong with settings of one head beside another, in words; None where nothing is."""
        if head != "faster_rcnn" and sampled_regions != cls.sampled_regions:
            return (
                f"{head} with task.sampled_regions={sampled_regions}: only faster_rcnn samples regions; leave "
                f"task.sampled_regions out, or at {cls.sampled_regions}, or set task.head to faster_rcnn"
            )
        if head == "atss":
            return None
        if fusion != "none":
            return (
                f"{head} with task.head_fusion={fusion}: that fusion stands before DynamicHead's blocks, which only "
                "atss has; set task.head_fusion to none, or task.head to atss"
            )
        if blocks != cls.blocks:
            return (
                f"{head} with task.blocks={blocks}: these are DynamicHead's blocks, which only atss has; leave "
                f"task.blocks out, or at {cls.blocks}, or set task.head to atss"
            )
        return None


#: The paper's model: Swin-B and RoBERTa-base.
BASE = FiberConfig()

#: Swin-T and DistilRoBERTa. Three layers are fused: six would leave the text no stem.
SMALL = FiberConfig(
    image=ImageConfig(embed_dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7),
    text=TextConfig(layers=6),
    fusion_layers=3,
    image_size=(224, 224),
)

#: Swin-L and RoBERTa-large.
LARGE = FiberConfig(
    image=ImageConfig(embed_dim=192, heads=(6, 12, 24, 48)),
    text=TextConfig(layers=24, hidden=1024, heads=16, intermediate=4096),
    hidden=1024,
)

#: Patches of 8 leave three stages, at the strides 8, 16 and 32.
_TINY_IMAGE = ImageConfig(embed_dim=64, depths=(2, 2, 1), heads=(2, 4, 8), window=4, patch=8, drop_path=0.0)
_TINY_TEXT = TextConfig(layers=3, hidden=96, heads=4, intermediate=384, vocab=2000, positions=258, dropout=0.0)
#: Trains from nothing in minutes on two CPU cores.
TINY = FiberConfig(
    image=_TINY_IMAGE,
    text=_TINY_TEXT,
    fusion_layers=2,
    hidden=256,
    image_size=(64, 64),
    # A tanh on the raw stream of so small a model is soon saturated.
    itc_pooler=False,
    init_std=None,
    gate_init=0.5,
)

#: As small, for recipes that have minutes on a CPU: shapes are told apart, and pairs judged, many times sooner.
MINI = dataclasses.replace(
    TINY, image=dataclasses.replace(TINY.image, stem="convolutions"), norm_image_memory=True, pair_pooler=False
)

PRESETS = {"tiny": TINY, "mini": MINI, "small": SMALL, "base": BASE, "large": LARGE}
