"""The losses of all pairs of an optimiser step, however many micro-batches and ranks share them.

Cached gradients ("Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", Gao et al. 2021), also for
ITM's negatives:

1. embed: each micro-batch through the stems and ITC's tops without a graph; its features and stems are kept.
2. ITC among all pairs gives the gradients of all features, and its similarities ITM's negatives.
3. match: ITM of each micro-batch, from the stems kept, with negatives of any micro-batch of any rank; the gradients of
   the stems are kept.
4. learn: each micro-batch through the stems and ITC's tops again, with the same chance as before, back from the
   gradients kept; MLM goes along.

Shapes: B pairs of a micro-batch, M micro-batches of a rank, G pairs of all ranks, D joint width, L text length. Pair i
of micro-batch m of rank r has the place (m · ranks + r) · B + i among all, as the step's samples have; with the number
r · M · B + m · B + i its rows are fetched.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fiber_cli.distributed.collectives import (
    add_rows,
    all_gather_grad,
    all_reduce_max,
    all_reduce_sum,
    exchange_rows,
    rank,
    world_size,
)
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.tasks.base import Pass
from fiber_cli.tasks.coarse.negatives import Negatives, draw_among

if TYPE_CHECKING:
    from fiber_cli.tasks.coarse.task import CoarseTask

Batch = dict[str, Any]
#: The chance of ITM's passes, see `Pass.stream`.
MATCHING = 1


class Embedded(NamedTuple):
    """Stems of images and texts, and their features, float32 (B, D), L2 norm 1."""

    image: ImageStem
    text: TextStem
    image_features: Tensor
    text_features: Tensor


class Matched(NamedTuple):
    """What an ITM pass began with: the pairs' own rows, a slice of those kept; the row numbers of their negatives; the
    maps and tokens of both, leaves; the factor that its loss had in the backward pass."""

    rows: slice
    negatives: Negatives
    maps: tuple[Tensor, Tensor]
    tokens: tuple[Tensor, Tensor]
    factor: list[Tensor]


class GlobalBatch:
    """The micro-batches of an optimiser step on this rank, of `CoarseTask` with ITC."""

    def __init__(self, task: "CoarseTask", batches: Sequence[Batch]):
        self.task = task
        self.batches = batches
        self.features: list[tuple[Tensor, Tensor]] = []
        self.stems: list[tuple[ImageStem, TextStem]] = []
        self.keys: list[Tensor] = []
        self.masked: list[Tensor] = []
        self.seed = 0
        self.values: list[Tensor] = []
        self.negatives: list[Negatives] = []

    @property
    def count(self) -> int:
        """M."""
        return len(self.batches)

    @property
    def size(self) -> int:
        """B."""
        return len(self.batches[0]["image_key"])

    def passes(self) -> Iterator[Pass]:
        """See `Task.passes`."""
        for number, batch in enumerate(self.batches):
            yield Pass(number, batch, self.embed, has_graph=False)
        self.compare()
        if self.task.itm is not None:
            self.keep_stems()
            for number, batch in enumerate(self.batches):
                yield Pass(number, batch, partial(self.match, number), stream=MATCHING)
                self.keep_gradients()
        for number, batch in enumerate(self.batches):
            yield Pass(number, batch, partial(self.learn, number), is_last=number == self.count - 1)
        if self.task.queue.size:
            self.task.queue.push(self._of_all(self.images.detach()), self._of_all(self.texts.detach()))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Keep the features and keys of a micro-batch, and for ITM its stems."""
        if not self.features:
            self.seed = batch["seed"]
        embedded = self.task.embed(batch)
        self.features.append((embedded.image_features, embedded.text_features))
        self.keys.append(batch["image_key"])
        if self.task.itm is not None:
            self.stems.append((embedded.image, embedded.text))
        if self.task.mlm is not None:
            self.masked.append(self.task.masked(batch))
        return {}

    def compare(self) -> None:
        """ITC among all pairs: its value of each micro-batch, the gradients of all features, and the negatives."""
        task = self.task
        assert task.temperature is not None
        image_features, text_features = zip(*self.features, strict=True)
        self.images, self.texts = _leaf(torch.cat(image_features)), _leaf(torch.cat(text_features))
        images, texts = self._of_all(self.images), self._of_all(self.texts)
        if task.itc_detach_keys:
            images, texts = images.detach(), texts.detach()
        keys = self._of_all(torch.cat(self.keys))
        losses = []
        for number in range(self.count):
            rows = self._rows(number)
            block = number * world_size() + rank()
            loss, similarities = task.contrast(self.images[rows], self.texts[rows], images, texts, block)
            losses.append(loss)
            self.values.append(loss.detach())
            if task.itm is not None:
                weights = task.negative_weights(similarities, block)
                drawn = draw_among(keys, block, self.size, self.seed, weights).first(task.itm_pairs)
                self.negatives.append(Negatives(self._numbers(drawn.images), self._numbers(drawn.texts)))
        # Each has its share, as a micro-step's loss has it.
        total = torch.stack(losses).sum()
        self.gradients = torch.autograd.grad(total, (self.images, self.texts, task.temperature))
        if self.masked:
            count = all_reduce_sum(torch.stack(self.masked).sum()).clamp(min=1)
            self.mean_masked = count / (self.count * world_size())

    def _of_all(self, rows: Tensor) -> Tensor:
        """Rows (M · B, …) of every rank → (G, …) in the order of their places."""
        gathered = all_gather_grad(rows).unflatten(0, (world_size(), self.count, self.size))
        return gathered.transpose(0, 1).flatten(0, 2)

    def _rows(self, number: int) -> slice:
        return slice(number * self.size, (number + 1) * self.size)

    def _numbers(self, places: Tensor) -> Tensor:
        """The row numbers of pairs at these places."""
        block, i = places // self.size, places % self.size
        micro_step, owner = block // world_size(), block % world_size()
        return (owner * self.count + micro_step) * self.size + i

    def keep_stems(self) -> None:
        """The stems of all micro-batches in one piece, texts padded to the longest of all, and zeros for their
        gradients. Those of the micro-batches are let go."""
        longest = max(text.mask.shape[1] for _, text in self.stems)
        length = int(all_reduce_max(torch.tensor(longest, device=self.images.device)))
        self.maps = torch.cat([image.map for image, _ in self.stems])
        text = TextStem.joined([text.padded(length) for _, text in self.stems])
        self.tokens, self.masks = text.tokens, text.mask.to(torch.uint8)
        self.stems.clear()
        self.map_gradients = torch.zeros_like(self.maps, dtype=torch.float32)
        self.token_gradients = torch.zeros_like(self.tokens, dtype=torch.float32)

    def match(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """ITM of a micro-batch, with negatives from all."""
        negatives = self.negatives[number]
        first = number * self.size
        rows = slice(first, first + len(negatives.images))
        maps = _leaf(self.maps[rows]), _leaf(exchange_rows(self.maps, negatives.images))
        tokens = _leaf(self.tokens[rows]), _leaf(exchange_rows(self.tokens, negatives.texts))
        masks = self.masks[rows].bool(), exchange_rows(self.masks, negatives.texts).bool()
        text, negative_text = TextStem(tokens[0], masks[0]), TextStem(tokens[1], masks[1])
        loss, accuracy = self.task.itm_loss(ImageStem(maps[0]), text, ImageStem(maps[1]), negative_text)
        weighted = self.task.weights["itm"] * loss
        self.matched = Matched(rows, negatives, maps, tokens, [])
        # The share of a micro-step, and of fp16 the loss scale.
        weighted.register_hook(self.matched.factor.append)
        return {"loss": weighted, "itm_loss": loss.detach(), "itm_accuracy": accuracy}

    def keep_gradients(self) -> None:
        """What the last ITM pass has found for the stems, on the ranks that have them."""
        matched = self.matched
        (factor,) = matched.factor
        for totals, leaves, numbers in (
            (self.map_gradients, matched.maps, matched.negatives.images),
            (self.token_gradients, matched.tokens, matched.negatives.texts),
        ):
            own, of_negatives = (_gradient(leaf) / factor for leaf in leaves)
            totals[matched.rows] += own
            add_rows(totals, of_negatives, numbers)

    def learn(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """A micro-batch again, from the gradients kept to those of the weights, and its MLM."""
        task, rows = self.task, self._rows(number)
        image, text, image_features, text_features = task.embed(batch)
        of_images, of_texts, of_temperature = self.gradients
        assert task.temperature is not None
        itc = _product(image_features, of_images[rows]) + _product(text_features, of_texts[rows])
        itc = _carried(self.values[number], itc + _product(task.temperature, of_temperature / self.count))
        losses = {"itc": itc}
        log = {"itc_loss": itc.detach(), "temperature": task.temperature.detach().clone()}
        if task.mlm is not None:
            losses["mlm"] = task.mlm_loss(image, batch, self.mean_masked)
            log["mlm_loss"] = losses["mlm"].detach()
        total = sum((task.weights[name] * loss for name, loss in losses.items()), torch.zeros_like(itc))
        if task.itm is not None:
            length = text.tokens.shape[1]
            of_stems = _product(image.map, self.map_gradients[rows])
            of_stems = of_stems + _product(text.tokens, self.token_gradients[rows, :length])
            total = total + _carried(torch.zeros_like(itc), of_stems)
            if number == self.count - 1:
                total = total + self._nothing_of_all()
        return {"loss": total, **log}

    def _nothing_of_all(self) -> Tensor:
        """0, with gradients of 0 for all that ITM's passes use: ZeRO 1 sends between ranks, while it goes back for the
        last time in a step, the gradients of the parameters that it meets on the way, and of no others."""
        assert self.task.itm is not None
        total = torch.zeros((), device=self.images.device)
        for module in (self.task.encoder, self.task.pool, self.task.itm):
            # Under ZeRO 3, which needs it not, what is not gathered has no elements.
            for parameter in module.parameters():
                if parameter.numel():
                    total = total + 0 * parameter.float().sum()
        return total


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _gradient(leaf: Tensor) -> Tensor:
    """Float32; zeros where nothing of a loss comes from the leaf."""
    return torch.zeros_like(leaf, dtype=torch.float32) if leaf.grad is None else leaf.grad.float()


def _product(tensor: Tensor, gradient: Tensor) -> Tensor:
    """What has `gradient` as its gradient of `tensor`."""
    return (tensor.float() * gradient).sum()


def _carried(value: Tensor, product: Tensor) -> Tensor:
    """A loss of this value with the gradients of the product."""
    return value + (product - product.detach())
