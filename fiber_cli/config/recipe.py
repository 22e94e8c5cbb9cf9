"""The sections of a recipe as frozen dataclasses.

The meanings, limits and defaults in the fields are what `fiber recipes schema` prints and `strict` checks.
"""

import dataclasses
import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import yaml

from fiber_cli.config.strict import OneOf
from fiber_cli.data.sources import SettingsByKind
from fiber_cli.placement import TrainingPrecision
from fiber_cli.settings import RecipeError, SourceSettings, TaskSettings, option
from fiber_cli.tasks import SettingsByName

#: How much another global batch may differ before more micro-steps are made for a nearer one.
NEAR = 0.01

AnySource = Annotated[SourceSettings, OneOf("kind", SettingsByKind())]
AnyTask = Annotated[TaskSettings, OneOf("name", SettingsByName())]


@dataclass(frozen=True)
class ModelSettings:
    """The encoder; an omitted size is the preset's."""

    preset: Literal["tiny", "mini", "small", "base", "large"] = option(
        "The sizes to start from; those of a tower whose weights are named are the weights' own."
    )
    image_size: int | None = option("Side of the square input in pixels, a multiple of 32.", None, ge=32)
    text_length: int = option("Tokens per caption; longer ones are cut and counted.", 40, ge=3)
    window: int | None = option(
        "Tokens along a side of the image tower's windows; null = the tower's own, grown with image_size.", None, ge=1
    )
    fusion_layers: int | None = option(
        "Last blocks of both towers that see each other, or of fusion on top its layers; 0 = no fusion; null = the "
        "preset's, of named text weights at most half of their layers.",
        None,
        ge=0,
    )
    fusion: Literal["backbone", "top", "none"] | None = option(
        "In the backbone, in layers on top of both towers, as in METER, or none, as with fusion_layers=0; null = as in "
        "--init-from, else backbone.",
        None,
    )
    fusion_attention: Literal["co", "merged"] | None = option(
        "In the backbone: co, a cross-attention beside each self-attention, or merged, one attention over both "
        "modalities; null = as in --init-from, else co.",
        None,
    )
    fusion_gate: bool | None = option(
        "Learned gates of fusion in the backbone; null = as in --init-from, else yes.", None
    )
    position_embedding: bool | None = option(
        "A learned embedding of where in the image a token lies; null = as in --init-from or towers, else the "
        "preset's.",
        None,
    )
    hidden: int | None = option("Joint width.", None, ge=1)
    drop_path: float | None = option("Stochastic depth of the last image block.", None, ge=0, lt=1)
    dropout: float | None = option("Dropout in the text encoder.", None, ge=0, lt=1)
    embed_dim: int | None = option("Channels of the first image stage.", None, ge=1)
    depths: tuple[int, ...] | None = option("Blocks of each image stage.", None, ge=1)
    image_heads: tuple[int, ...] | None = option("Attention heads of each image stage.", None, ge=1)
    text_layers: int | None = option("Layers of the text encoder.", None, ge=1)
    text_hidden: int | None = option("Width of the text encoder.", None, ge=1)
    text_heads: int | None = option("Attention heads of the text encoder.", None, ge=1)
    text_intermediate: int | None = option("Width of the text encoder's feed-forward layers.", None, ge=1)
    swin: str | None = option(
        "Initial image weights, whose sizes are the tower's: timm or hub name, file or folder; null = random.", None
    )
    norm_image_query: bool | None = option(
        "LayerNorm on the image's queries of the text; null = as in --init-from, else yes.", None
    )
    roberta: str | None = option(
        "Initial text weights, whose sizes are the tower's: hub name or local folder; null = random.", None
    )
    towers: str | None = option(
        "Initial weights of both towers, and of the heads that fit: a run or checkpoint of fiber's, whose fusion is "
        "left out; null = random, or of swin and roberta.",
        None,
    )
    tokenizer: str = option(
        "builtin, a hub name, or a local folder; where it is not given and roberta is, that of roberta.", "builtin"
    )


@dataclass(frozen=True)
class DataSettings:
    """What is read and how."""

    train: tuple[AnySource, ...] = option("Sources to train on.")
    val: tuple[AnySource, ...] = option("Sources of the periodic validation.", ())
    root: str | None = option("Folder that relative paths start from; null = the current one.", None)
    augment: Literal["none", "randaugment"] = option("none = resize only.", "none")
    captions: Literal["random", "each"] = option("An epoch shows one caption per image, or each.", "random")
    workers: int = option("Worker processes that read data, per rank.", 4, ge=0)
    max_bad_rate: float = option("Share of unreadable images past which the run stops.", 0.01, ge=0, le=1)
    max_pixels: int = option("Images with more pixels are not decoded.", 89_478_485, ge=1)


@dataclass(frozen=True)
class OptimSettings:
    """AdamW and its schedule; exactly one of steps and epochs is given."""

    lr: float = option("Peak learning rate of both backbones.", gt=0)
    cross_modal_mult: float = option("Cross-modal parameters learn this many times faster.", 5.0, gt=0)
    head_mult: float = option("Heads learn this many times faster.", 5.0, gt=0)
    text_mult: float = option("On top of it, the text encoder with its fusion.", 1.0, gt=0)
    betas: tuple[float, float] = option("AdamW's betas.", (0.9, 0.98), ge=0, lt=1)
    eps: float = option("AdamW's epsilon.", 1e-8, gt=0)
    weight_decay: float = option("None on biases and norms.", 0.01, ge=0)
    as_published: Literal["none", "coarse", "fine"] = option(
        "Decay of norms and gates (fine: and rates of biases); as_published: coarse or fine.",
        "none",
        formerly="published",
    )
    warmup: float = option("Linear warm-up: a share of the run if below 1, else steps.", 0.1, ge=0)
    schedule: Literal["linear", "cosine", "constant", "steps", "plateau"] = option(
        "After the warm-up; steps = a tenth from 67%, a hundredth from 89%; plateau = by validation.", "linear"
    )
    patience: int = option("plateau: validations in a row without a better log.keep_best per tenth.", 3, ge=1)
    steps: int | None = option("Optimiser steps.", None, ge=1)
    epochs: int | None = option("Passes over the data, instead of steps.", None, ge=1)


@dataclass(frozen=True)
class RuntimeSettings:
    """How the run uses its machines."""

    micro_batch: int = option("Pairs per rank and forward pass.", ge=1)
    global_batch: int = option(
        "Pairs per optimiser step: a multiple of micro_batch; ranks that do not divide it take a batch near it.",
        ge=1,
    )
    seed: int = option("Of everything random.", 0, ge=0, le=2**53)
    precision: TrainingPrecision = option(
        "Of the computation; parameters stay fp32. auto: bf16 on GPUs that have it, else fp32.", "fp32"
    )
    tf32: bool | None = option(
        "GPUs round the factors of float32 products to TensorFloat-32; null = in convolutions alone.", None
    )
    zero_stage: Literal[0, 1, 2, 3] = option("Sharded: 1 optimiser, 2 also gradients, 3 also parameters.", 0)
    clip: float | None = option("Largest gradient norm; null = no clipping.", None, gt=0)
    offload: Literal["none", "cpu"] = option("Where the optimiser's state lies.", "none")
    compile: bool | Literal["auto"] = option(
        "torch.compile of the networks' blocks; auto: on GPUs where it runs, of runs of 2,000 steps and more.", "auto"
    )
    norms: Literal["fp32", "low"] = option(
        "LayerNorms and the residual streams in fp32, or in the precision, as of bf16.", "fp32"
    )
    deformable: Literal["fp32", "low"] = option(
        "Products of deformable convolutions in fp32, as published, or in the precision, as of bf16.", "fp32"
    )
    channels_last: bool = option("Maps in the detector's head lie position by position in memory.", False)
    overlap: bool = option("ZeRO 1 and 2 send gradients while the backward pass goes on.", True)
    activation_checkpointing: bool = option("Recompute activations to save memory.", False)
    ema: float | None = option("Decay of the weights' moving average; null = none.", None, gt=0, lt=1)
    max_nonfinite: int = option("Non-finite losses in a row that end the run.", 10, ge=1)
    threads: int | None = option("CPU threads per rank; null = torch's choice.", None, ge=1)

    def micro_steps(self, world: int) -> int:
        """Micro-steps per optimiser step on `world` ranks; RecipeError where the global batch does not divide."""
        unit = self.micro_batch * world
        if self.global_batch % unit == 0:
            return self.global_batch // unit
        below = self.global_batch // unit * unit
        batches = f"{below} or {below + unit}" if below else str(unit)
        of_ranks = f" x ranks = {self.micro_batch} x {world}" if world > 1 else ""
        raise RecipeError(
            f"runtime.global_batch: {self.global_batch} is no multiple of micro_batch{of_ranks} = {unit}: set "
            f"global_batch to {batches}{self._fitting_micro_batch(world)}"
        )

    def _fitting_micro_batch(self, world: int) -> str:
        """The largest micro-batch that the global batch divides by, where there is one."""
        share, rest = divmod(self.global_batch, world)
        if rest or not share:
            return ""
        sizes = [size for size in range(1, min(self.micro_batch, share) + 1) if share % size == 0]
        return f", or micro_batch to {sizes[-1]}"

    def on_ranks(self, world: int) -> "RuntimeSettings":
        """These settings where the global batch divides by the ranks, else with another batch that does, of equal
        micro-batches that are no larger: of those within `NEAR` the one of fewest micro-steps, else the nearest of at
        most twice as many micro-steps."""
        if self.global_batch % (self.micro_batch * world) == 0:
            return self
        share = self.global_batch / world
        fewest = max(1, math.ceil(share / self.micro_batch))
        nearest, least = self, math.inf
        for micro_steps in range(fewest, 2 * fewest + 1):
            micro_batch = min(self.micro_batch, max(1, round(share / micro_steps)))
            fitted = replace(self, micro_batch=micro_batch, global_batch=micro_batch * micro_steps * world)
            distance = abs(fitted.global_batch - self.global_batch)
            if distance < least:
                nearest, least = fitted, distance
            if least <= NEAR * self.global_batch:
                break
        return nearest


@dataclass(frozen=True)
class LogSettings:
    """What a run writes, counted in steps."""

    every: int = option("Steps between log lines.", 10, ge=1)
    validate_every: int | Literal["epoch"] | None = option(
        "Steps between validations, or epoch: once in each; null = none.", None, ge=1
    )
    save_every: int = option("Steps between checkpoints.", 1000, ge=1)
    device_share: bool | None = option(
        "Show the share of the device's rate, measured by a matrix product at the start; null = on GPUs.", None
    )
    save_in_background: bool = option(
        "Checkpoints are written beside training, from a copy in host memory; false: training waits.", True
    )
    keep_last: int = option("Newest checkpoints to keep.", 2, ge=1)
    keep_best: str | None = option("Also keep the best checkpoint by this metric of the task.", None)
    stop_after: int | None = option(
        "Validations in a row without a better keep_best that end the run; null = none.", None, ge=1
    )
    tensorboard: bool = option("Write TensorBoard events.", False)
    wandb: str | None = option("Weights & Biases project; null = none.", None)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run."""

    name: str = option("Names the run's folder; the file's name if not given.", "recipe")
    model: ModelSettings
    task: AnyTask
    data: DataSettings
    optim: OptimSettings
    runtime: RuntimeSettings
    log: LogSettings = field(default_factory=LogSettings)
    deepspeed: dict[str, Any] = option("Passed to DeepSpeed as it is, over what `runtime` sets.", factory=dict)

    def on_ranks(self, world: int) -> "Recipe":
        """See `RuntimeSettings.on_ranks`."""
        return replace(self, runtime=self.runtime.on_ranks(world))

    def to_yaml(self) -> str:
        """Every setting, in a form that `resolve_recipe` reads back as an equal recipe."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, width=110)


def warmup_steps(warmup: float, steps: int) -> int:
    """`optim.warmup` in steps; RecipeError where it would not end before the run does."""
    count = round(warmup * steps) if warmup < 1 else int(warmup)
    if count >= steps:
        raise RecipeError(f"optim.warmup: {warmup:g} must end before the run's {steps} steps do")
    return count
