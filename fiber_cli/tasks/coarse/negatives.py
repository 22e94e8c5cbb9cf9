"""Negative pairs of image-text matching, drawn among the rows of all ranks (paper section 3.2).

Shapes: B rows on this rank, G rows on all ranks, Q filled queue columns.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fiber_cli.distributed.collectives import all_gather_grad, all_reduce_max, exchange_rows, rank, world_size
from fiber_cli.errors import UserError
from fiber_cli.model.fusion import ImageStem, TextStem


class Weights(NamedTuple):
    """Chances (B, G + Q) of each candidate: of texts for this rank's images, of images for its texts."""

    image_to_text: Tensor
    text_to_image: Tensor


class Negatives(NamedTuple):
    """Global row numbers, int64 (B,) each: one negative image for each text, one negative text for each image."""

    images: Tensor
    texts: Tensor

    def first(self, pairs: int | None) -> "Negatives":
        """Those of the first so many pairs, None = all."""
        return Negatives(self.images[:pairs], self.texts[:pairs])


def sampling_weights(similarities: Tensor, block: int, margin: float | None = None) -> Tensor:
    """Chances (B, G + Q) with which each candidate is a hard negative: a softmax over batch and filled queue, the
    row's own column set to 0. Negatives are drawn among the G columns of the batch, of which the rows' own are the
    block of B with the number `block`, as of a rank among all. margin: what comes this near to the
    similarity of the row's own column, or above it, gets no chance ("NV-Retriever", 2024, positive-aware mining)."""
    if margin is not None:
        similarities = _without_likely_positives(similarities, block, margin)
    weights = similarities.softmax(1)
    weights[:, block * len(weights) :].fill_diagonal_(0.0)
    return weights


def _without_likely_positives(similarities: Tensor, block: int, margin: float) -> Tensor:
    """The similarities, minus infinity where one is that of a pair that may be true and is not annotated."""
    own = similarities[:, block * len(similarities) :].diagonal()
    is_likely = similarities > own[:, None] - margin
    is_likely[:, block * len(similarities) :].fill_diagonal_(False)
    return similarities.masked_fill(is_likely, -torch.inf)


def draw_negatives(image_key: Tensor, seed: int, weights: Weights | None) -> Negatives:
    """Draw by `sampling_weights`, or uniformly. image_key: int64 (B,), equal for captions of one image; a pair is never
    its own negative, nor is another caption of the same image, unless the batch has no other image. The draw of a row
    depends on `seed` and its global number alone, not on the number of ranks. Raises UserError for a batch of one pair.
    """
    return draw_among(all_gather_grad(image_key), rank(), len(image_key), seed, weights)


def draw_among(keys: Tensor, block: int, rows: int, seed: int, weights: Weights | None) -> Negatives:
    """The same for the pairs of one block of `rows` of all pairs, whose keys are int64 (G,)."""
    if len(keys) < 2:
        raise UserError(
            "image-text matching needs a negative, and there is one pair; raise runtime.micro_batch or set task.itm=0"
        )
    first = block * rows
    excluded = _excluded(keys, first, rows)
    uniform = torch.rand(2, len(keys), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    uniform = uniform[:, first : first + rows].to(keys.device, non_blocking=True)
    if weights is None:
        chances = torch.ones_like(excluded, dtype=torch.float64)
        return Negatives(_draw(chances, excluded, uniform[0]), _draw(chances, excluded, uniform[1]))
    images = weights.text_to_image[:, : len(keys)].double() + 1e-9
    texts = weights.image_to_text[:, : len(keys)].double() + 1e-9
    return Negatives(_draw(images, excluded, uniform[0]), _draw(texts, excluded, uniform[1]))


def _excluded(keys: Tensor, first: int, rows: int) -> Tensor:
    """What is no negative of the `rows` rows from number `first` on, bool (B, G)."""
    local = slice(first, first + rows)
    itself = torch.eye(len(keys), dtype=torch.bool, device=keys.device)[local]
    same_image = keys[None, :] == keys[local, None]
    only_one_image = same_image.all(1, keepdim=True)
    return torch.where(only_one_image, itself, same_image)


def _draw(chances: Tensor, excluded: Tensor, uniform: Tensor) -> Tensor:
    """A column of each row of `chances` (B, G), int64 (B,), by random numbers (B,) in [0, 1)."""
    cumulative = chances.masked_fill(excluded, 0.0).cumsum(1)
    point = uniform[:, None] * cumulative[:, -1:]
    # right=True passes over excluded columns, whose cumulative chance does not grow.
    columns = torch.searchsorted(cumulative, point, right=True).squeeze(1)
    return columns.clamp(max=chances.shape[1] - 1)


def of_one_width(text: TextStem) -> TextStem:
    """The stem with as much padding as the widest of all ranks, whose rows go together."""
    if world_size() == 1:
        return text
    width = text.mask.shape[1]
    return text.padded(int(all_reduce_max(torch.tensor(width, device=text.tokens.device))))


def fetch(image: ImageStem, text: TextStem, negatives: Negatives) -> tuple[ImageStem, TextStem]:
    """Stems of global rows, from the ranks that computed them, whose texts are of one width; gradients flow back there.
    What the first fused pair has made of the images comes from this rank alone: to compute it again is cheaper than to
    send it."""
    masks = all_gather_grad(text.mask.to(torch.uint8))
    mask = masks[negatives.texts].bool()
    if world_size() == 1:
        negative_image = image._replace(earlier=()).rows(negatives.images)
    else:
        negative_image = ImageStem(exchange_rows(image.map, negatives.images))
    return negative_image, TextStem(exchange_rows(text.tokens, negatives.texts), mask)
