"""What every head of the detector does: on the pyramid it finds regions and aligns each with every token of the text.

Shapes: B batch, N regions of one image, C channels, L text length, G true boxes of one image. Boxes are xyxy in pixels
of the network's input and name their first and last pixel.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.linear import Linear

#: Of the losses of final boxes.
BOX_WEIGHT = 2.0


class Truth(NamedTuple):
    """What is to be found on a batch: `mask` bool (B, L), real tokens; per image `boxes` (G, 4), G may be 0, and
    `names` (G, L), non-zero where a token names the box. A region without a box names no token; `last_token_unmatched`
    is the published target, which makes it name the last column (felt where a text fills all of them)."""

    mask: Tensor
    boxes: Sequence[Tensor]
    names: Sequence[Tensor]
    last_token_unmatched: bool = False

    def tokens(self, image: int, matched_N: Tensor) -> Tensor:
        """bool (N, L), the tokens that regions of an image are to name. matched_N: int64, the number of the box of
        each, negative for none."""
        names_GL = self.names[image].to(matched_N.device).bool()
        is_matched = matched_N >= 0
        tokens_NL = torch.zeros(len(matched_N), names_GL.shape[1], dtype=torch.bool, device=matched_N.device)
        tokens_NL[is_matched] = names_GL[matched_N[is_matched]]
        if self.last_token_unmatched:
            tokens_NL[:, -1] |= ~is_matched
        return tokens_NL

    def padded(self, like: Tensor) -> "PaddedBoxes":
        """The boxes of all images side by side, at least one place an image; of the dtype and on the device of
        `like`."""
        most = max(1, *map(len, self.boxes))
        boxes_BG4 = _padded_rows(self.boxes, most).to(like, non_blocking=True)
        names_BGL = _padded_rows(self.names, most).to(like.device, non_blocking=True)
        counts_B = torch.tensor(list(map(len, self.boxes))).to(like.device, non_blocking=True)
        is_box_BG = torch.arange(most, device=like.device) < counts_B[:, None]
        return PaddedBoxes(boxes_BG4, is_box_BG, names_BGL.bool())

    def tokens_of_batch(self, names_BGL: Tensor, matched_BN: Tensor) -> Tensor:
        """`tokens` of all images: bool (B, N, L). names: of `padded`; matched_BN: int64."""
        is_matched = matched_BN[:, :, None] >= 0
        numbers = matched_BN.clamp(min=0)[:, :, None].expand(-1, -1, names_BGL.shape[2])
        tokens_BNL = names_BGL.gather(1, numbers) & is_matched
        if self.last_token_unmatched:
            tokens_BNL[:, :, -1:] |= ~is_matched
        return tokens_BNL


class PaddedBoxes(NamedTuple):
    """Boxes (B, G, 4) of a batch, padded to one number an image; where there is one, bool (B, G); and the tokens that
    name it, bool (B, G, L)."""

    boxes_BG4: Tensor
    is_box_BG: Tensor
    names_BGL: Tensor


def _padded_rows(of_images: Sequence[Tensor], most: int) -> Tensor:
    """Rows (G_i, C) of each image as (B, most, C), zeros after the last."""
    return torch.stack([F.pad(rows, (0, 0, 0, most - len(rows))) for rows in of_images])


class LossSum(NamedTuple):
    """A loss as a sum over this rank's batch, with the graph, and the count that it is divided by: the mean over ranks,
    at least `least`. weight: of the quotient in the sum of all losses."""

    total: Tensor
    divisor: Tensor
    least: float = 1.0
    weight: float = 1.0


class Regions(NamedTuple):
    """What a head finds on one image, float32: `boxes` (N, 4), and `logits` (N, L) of each for every token, before the
    sigmoid. quality: (N,), 0 to 1, how well the boxes lie, of heads that judge that. level_lengths: how many regions,
    one after another, each level of the pyramid has; of regions without levels one number."""

    boxes: Tensor
    logits: Tensor
    quality: Tensor | None
    level_lengths: Sequence[int]


class DetectionOutput(Protocol):
    """What a head says about a batch."""

    def regions(self, image: int) -> Regions:
        """Of one image."""
        ...

    def loss_sums(self, truth: Truth) -> Mapping[str, LossSum]:
        """The losses by the names that the log has for them; their weighted quotients add up to the whole loss."""
        ...


class DetectionHead(nn.Module, ABC):
    """The base of the heads, with the alignment that all of them have.

    OWN: beginnings of the names of those parameters that no other head has; the rest, those of the alignment, can go on
    in another one.
    """

    OWN: ClassVar[tuple[str, ...]]

    @abstractmethod
    def forward(
        self, levels: list[Tensor], text_BLC: Tensor, mask_BL: Tensor | None = None, truth: Truth | None = None
    ) -> DetectionOutput:
        """levels: (B, C, H_l, W_l) each, finest first; text_BLC: text states, 0 at padding positions; mask: bool, True
        for real tokens. truth: in training, for heads that choose the regions that they learn from."""

    def add_alignment(self, channels: int, text_dim: int, log_scale: float) -> None:
        """Make the parameters that `align` needs, of this module itself, as the published names have them."""
        self.text_proj = Linear(text_dim, channels)
        self.log_scale = nn.Parameter(torch.full((1,), log_scale))
        self.bias_lang = nn.Parameter(torch.zeros(text_dim))
        #: Every token starts with a probability of 0.01.
        self.bias0 = nn.Parameter(torch.full((1,), -math.log(99)))

    def align(self, regions_BNC: Tensor, text_BLC: Tensor) -> Tensor:
        """Logits (B, N, L), at least float32, of features of regions for every token."""
        embedded = F.normalize(text_BLC, dim=-1)
        tokens_BLC = self.text_proj(embedded / 2) * torch.exp(-self.log_scale)
        bias_BL = embedded @ self.bias_lang + self.bias0
        logits_BNL = regions_BNC @ tokens_BLC.transpose(1, 2) + bias_BL[:, None]
        return widened(logits_BNL).clamp(-50000, 50000)


def widened(x: Tensor) -> Tensor:
    """At least float32, whatever autocast made of it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def flatten_levels(levels: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, H_l, W_l) -> (B, N, C), channel by channel in memory as they are."""
    flat_BCN = torch.cat([level.flatten(2) for level in levels], 2)
    return flat_BCN.mT


def token_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (alpha 0.25, gamma 2) of every logit; targets bool, of the same shape."""
    miss = torch.where(targets, -logits, logits)
    weight = torch.where(targets, 0.25, 0.75)
    return weight * miss.sigmoid().square() * F.softplus(miss)
