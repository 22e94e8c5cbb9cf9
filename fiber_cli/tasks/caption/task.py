"""Captioning by likelihood, GOLD or CIDEr (paper section 3.3); losses are means over the global batch.

Shapes: B images, K samples of each, L text length, N image tokens, C image width.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fiber_cli.data.padding import longest_text, text_width
from fiber_cli.data.text import special_ids
from fiber_cli.model.beam_search import beam_search, best_captions
from fiber_cli.model.captioner import Captioner, SpecialIds
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.decoder_cache import ImageMemory
from fiber_cli.model.fusion import FusedEncoder
from fiber_cli.model.heads import MlmHead, PairPooler
from fiber_cli.model.pixels import normalize
from fiber_cli.model.sampling import sample
from fiber_cli.settings import Owner, owned
from fiber_cli.tasks.abilities import BestTexts, Captioning
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.caption.cider import CiderD, CiderReward, read_document_frequency
from fiber_cli.tasks.caption.settings import CaptionSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.token_losses import TokenLosses, next_tokens, token_losses

PROBABILITY_FLOOR = 1e-9

Module = TypeVar("Module", bound=nn.Module)


class CaptionTask(Task, Captioning):
    """form: what the text layers read of the image, see `FusedEncoder.memory`. objective: "mle"; "gold", likelihood
    with each token weighted by what a frozen copy of the weights, renewed every `gold_refresh` steps, thinks of it and
    of what follows, at least `gold_floor`; or "cider", likelihood and `cider_weight` of the reward of `cider_samples`
    drawn captions an image. gold_as_published: divide a caption's GOLD loss by the number of its padding labels, and
    average its loss in evaluation mode over ignored positions too, as the published code does. beam, max_length
    (tokens, `cls_id` included), search_as_published (see `beam_search`): of generated captions.

    `reward`, set by `prepare_training`: token ids int64 (B*K, L) and each image's references -> float64 (B*K,).
    """

    reward: Callable[[Tensor, Sequence[Sequence[str]]], np.ndarray]

    def __init__(
        self,
        config: FiberConfig,
        *,
        form: Literal["seq2seq", "fused"] = "seq2seq",
        objective: str = "mle",
        gold_refresh: int = 1000,
        gold_floor: float = 0.1,
        gold_as_published: bool = False,
        cider_samples: int = 5,
        cider_weight: float = 0.7,
        beam: int = 5,
        search_as_published: bool = False,
        max_length: int = 50,
        cls_id: int = 0,
        sep_id: int = 2,
        pad_id: int = 1,
        mask_id: int = 50264,
    ):
        super().__init__()
        self.objective = objective
        self.gold_refresh = gold_refresh
        self.gold_floor = gold_floor
        self.gold_as_published = gold_as_published
        self.cider_samples = cider_samples
        self.cider_weight = cider_weight
        self.beam = beam
        self.search_as_published = search_as_published
        self.max_length = max_length
        #: Tokens of the longest text that there may be, None where every batch is so wide.
        self.text_length: int | None = None
        self.special = SpecialIds(cls_id, sep_id, pad_id, mask_id)
        self.encoder = FusedEncoder(config, captioning=True, paired_memory=form == "fused")
        self.pool = PairPooler(config)
        self.mlm = MlmHead(config)
        # In a tuple, so that it is no submodule: neither trained, nor sharded, nor part of the checkpoint's weights.
        self.frozen: Captioner | None = None

    @classmethod
    def from_context(cls, context: TaskContext[CaptionSettings]) -> Self:
        settings = owned(context.settings, Owner.MODEL)
        settings |= special_ids(context.tokenizer)
        task = cls(context.model, max_length=context.text_length, **settings)
        task.text_length = context.text_length
        return task

    def prepare_training(self, context: TaskContext[CaptionSettings]) -> None:
        """Read what the reward needs, where the settings name it."""
        if context.settings.cider_df:
            table = read_document_frequency(context.settings.cider_df)
            self.reward = CiderReward(CiderD(table), context.tokenizer)

    @property
    def captioner(self) -> Captioner:
        return Captioner(self.encoder, self.pool, self.mlm)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "loss" carries the graph; "mle_loss" and, in training, "gold_loss" or "cider_loss" and "reward" (CIDEr-D, 0
        to 10) are for the log. batch: pixels uint8 (B, 3, H, W); ids int64 and mask bool (B, L); optionally
        label_positions, see `labelled_positions`; for GOLD step int; for CIDEr references, the captions of each
        image."""
        pixels, ids, mask = normalize(batch["pixels"]), batch["ids"], batch["mask"]
        memory = self.captioner.memory(pixels)
        positions = batch.get("label_positions")
        losses = self.cross_entropies(self.captioner, memory, ids, mask, positions)
        mle = losses.mean()
        loss = mle
        log = {"mle_loss": mle.detach()}
        if self.objective == "gold" and self.training:
            self.refresh_frozen(batch["step"])
            weights = self.gold_weights(pixels, ids, mask, positions)
            loss = self.gold_loss(losses, weights)
            log["gold_loss"] = loss.detach()
        elif self.objective == "gold" and self.gold_as_published:
            loss = losses.entropies.sum() / (len(ids) * self.published_width(ids))
        elif self.objective == "cider":
            loss = (1 - self.cider_weight) * mle
            if self.training:
                # After a pass with gradient: autocast keeps its casts of the weights, which must be of the graph.
                drawn = self.draw_captions(memory)
                cider, log["reward"] = self.cider_loss(memory, drawn, batch["references"])
                loss = loss + self.cider_weight * cider
                log["cider_loss"] = cider.detach()
        return {"loss": loss, **log}

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Captions of "pixels" uint8 (B, 3, H, W): token ids int64 (B, max_length - 1), without cls and sep, padded."""
        return self.caption_pixels(batch["pixels"])

    def caption_pixels(self, pixels: Tensor, *, beam: int | None = None, as_published: bool | None = None) -> Tensor:
        memory = self.captioner.memory(normalize(pixels))
        return self.caption(memory, beam=beam, as_published=as_published)

    def caption(self, memory: ImageMemory, *, beam: int | None = None, as_published: bool | None = None) -> Tensor:
        """`predict` from the memory of B images. beam, as_published: of this call, the task's own by default."""
        if beam is None:
            beam = self.beam
        if as_published is None:
            as_published = self.search_as_published
        tokens, _ = beam_search(
            self.captioner,
            memory,
            beam=beam,
            max_length=self.max_length,
            special=self.special,
            as_published=as_published,
        )
        return self._without_ends(tokens)

    def best_captions(
        self, pixels: Tensor, count: int, *, beam: int | None = None, as_published: bool | None = None
    ) -> BestTexts:
        if beam is None:
            beam = self.beam
        if as_published is None:
            as_published = self.search_as_published
        tokens, log_probs = best_captions(
            self.captioner,
            self.captioner.memory(normalize(pixels)),
            count,
            beam=beam,
            max_length=self.max_length,
            special=self.special,
            as_published=as_published,
        )
        return BestTexts(self._without_ends(tokens), log_probs.exp())

    def _without_ends(self, tokens: Tensor) -> Tensor:
        """The tokens, with padding in place of those that begin and end a caption."""
        hidden = (tokens == self.special.cls) | (tokens == self.special.sep)
        return tokens.masked_fill(hidden, self.special.pad)

    def cross_entropies(
        self, captioner: Captioner, memory: ImageMemory, ids: Tensor, mask: Tensor, positions: Tensor | None = None
    ) -> TokenLosses:
        """See `token_losses`, of texts that are learned whole."""
        return token_losses(captioner, memory, ids, mask, self.labels(ids), positions)

    def labels(self, ids: Tensor) -> Tensor:
        """The next token of every position, int64 (rows, L), -100 where there is none."""
        return next_tokens(ids, self.special.pad)

    def gold_loss(self, losses: TokenLosses, weights: Tensor) -> Tensor:
        """The mean over captions of their cross-entropy per token, weighted (B, L)."""
        count = losses.real.sum(1).clamp(min=1)
        if self.gold_as_published:
            count = self.published_width(losses.real) - losses.real.sum(1) + 1e-9
        totals = (losses.entropies * weights).sum(1)
        return (totals / count).mean()

    def published_width(self, tokens_BL: Tensor) -> int:
        """Columns of the texts of a batch (B, L) with the published padding, to the longest that there may be."""
        return self.text_length or tokens_BL.shape[1]

    @torch.no_grad()
    def gold_weights(self, pixels: Tensor, ids: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
        """Of every next token, float32 (B, L): its probability by the frozen copy times the mean probability of it
        and the tokens after it, at least `gold_floor`. pixels: normalised (B, 3, H, W)."""
        assert self.frozen is not None, "refresh_frozen makes the copy"
        memory = self.frozen.memory(pixels)
        losses = self.cross_entropies(self.frozen, memory, ids, mask, positions)
        probability = ((-losses.entropies).exp() + PROBABILITY_FLOOR) * losses.real
        following = _sums_to_the_end(probability)
        count = _sums_to_the_end(losses.real).clamp(min=1)
        return (probability * following / count).clamp(min=self.gold_floor)

    def refresh_frozen(self, step: int) -> None:
        """Copy the weights at every step that is a multiple of `gold_refresh`."""
        if self.frozen is None or step % self.gold_refresh == 0:
            self.frozen = None  # freed before the copy is made
            self.frozen = Captioner(_frozen(self.encoder), _frozen(self.pool), _frozen(self.mlm))

    def draw_captions(self, memory: ImageMemory) -> Tensor:
        """`cider_samples` captions of each image, int64 (B*K, max_length), see `sample`."""
        return sample(
            self.captioner, memory, samples=self.cider_samples, max_length=self.max_length, special=self.special
        )

    def cider_loss(
        self, memory: ImageMemory, drawn: Tensor, references: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """The policy gradient of drawn captions, int64 (B*K, L), and their mean reward. As published the baseline is 1
        and the sum over samples is divided by the number of images."""
        is_real = drawn != self.special.pad
        width = text_width(longest_text(is_real), drawn.shape[1])
        losses = self.cross_entropies(self.captioner, memory, drawn[:, :width], is_real[:, :width])
        log_probs = ((-losses.entropies).exp() + PROBABILITY_FLOOR).log() * losses.real
        mean = log_probs.sum(1) / (losses.real.sum(1) + 1e-9)
        rewards = torch.as_tensor(self.reward(drawn, references), device=mean.device)
        total = (mean * (100 - 100 * rewards)).sum().float()
        return total / len(memory), rewards.mean()

    def resume_state(self) -> dict[str, Tensor]:
        return {} if self.frozen is None else _modules(self.frozen).state_dict()

    def load_resume_state(self, state: dict[str, Tensor]) -> None:
        if state:
            self.refresh_frozen(0)
            assert self.frozen is not None
            _modules(self.frozen).load_state_dict(state)


def _frozen(module: Module) -> Module:
    """A copy in evaluation mode, without gradients."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def _modules(captioner: Captioner) -> nn.ModuleDict:
    return nn.ModuleDict(captioner._asdict())


def _sums_to_the_end(values: Tensor) -> Tensor:
    """Of each position and all after it, (rows, L)."""
    return values.flip(1).cumsum(1).flip(1)
