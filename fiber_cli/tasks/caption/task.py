"""Captioning by likelihood, GOLD or CIDEr (paper section 3.3); losses are means over the global batch.

Shapes: B images, K samples of each, L text length, N image tokens, C image width.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.distributed import collectives as dist
from fiber_cli.data.images import normalize
from fiber_cli.model.captioner import Captioner, SpecialIds, beam_search, sample
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.fusion import FusedEncoder
from fiber_cli.model.heads import MlmHead, PairPooler
from fiber_cli.tasks.base import Task

PROBABILITY_FLOOR = 1e-9


class CaptionTask(Task):
    """objective: "mle"; "gold", likelihood with each token weighted by what a frozen copy of the weights, renewed every
    `gold_refresh` steps, thinks of it and of what follows, at least `gold_floor`; or "cider", likelihood and
    `cider_weight` of the reward of `cider_samples` drawn captions an image. gold_published: divide a caption's GOLD
    loss by the number of its padding labels, and average its loss in evaluation mode over ignored positions too, as
    the published code does. beam, max_length (tokens, `cls_id` included), published_search (see `beam_search`): of
    generated captions.

    `reward`, set from outside: token ids int64 (B*K, L) and each image's references -> float64 (B*K,).
    """

    NEW = ("encoder.memory_proj.",)
    DROPPED = ("itc_pool.", "itm.", "temperature")
    reward: Callable[[Tensor, Sequence[Sequence[str]]], np.ndarray]

    def __init__(
        self, config: FiberConfig, *, objective: str = "mle", gold_refresh: int = 1000, gold_floor: float = 0.1,
        gold_published: bool = False, cider_samples: int = 5, cider_weight: float = 0.7, beam: int = 5,
        published_search: bool = False, max_length: int = 50, cls_id: int = 0, sep_id: int = 2, pad_id: int = 1,
        mask_id: int = 50264,
    ):  # fmt: skip
        super().__init__()
        self.objective, self.beam, self.published_search = objective, beam, published_search
        self.gold_refresh, self.gold_floor, self.gold_published = gold_refresh, gold_floor, gold_published
        self.cider_samples, self.cider_weight = cider_samples, cider_weight
        self.special = SpecialIds(cls_id, sep_id, pad_id, mask_id)
        self.limits = {"max_length": max_length, "special": self.special}
        self.encoder = FusedEncoder(config, captioning=True)
        self.pool, self.mlm = PairPooler(config), MlmHead(config)
        # In a tuple, so that it is no submodule: neither trained, nor sharded, nor part of the checkpoint's weights.
        self.frozen: Captioner | None = None

    @property
    def captioner(self) -> Captioner:
        return Captioner(self.encoder, self.pool, self.mlm)

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """ "loss" carries the graph; "mle_loss" and, in training, "gold_loss" or "cider_loss" and "reward" (CIDEr-D, 0
        to 10) are for the log. batch: pixels uint8 (B, 3, H, W); ids int64 and mask bool (B, L); for GOLD step int;
        for CIDEr references, the captions of each image."""
        pixels, ids, mask = normalize(batch["pixels"]), batch["ids"], batch["mask"]
        memory = self.captioner.memory(pixels)
        entropies, real = self.cross_entropies(self.captioner, memory, ids, mask)
        count = dist.all_reduce_sum(real.sum().float()).clamp(min=1)
        mle = entropies.sum() * dist.world_size() / count
        loss, log = mle, {"mle_loss": mle.detach()}
        if self.objective == "gold" and self.training:
            self.refresh_frozen(batch["step"])
            loss = self.gold_loss(entropies, real, self.gold_weights(pixels, ids, mask))
            log["gold_loss"] = loss.detach()
        elif self.objective == "gold" and self.gold_published:
            loss = entropies.mean()
        elif self.objective == "cider":
            loss = (1 - self.cider_weight) * mle
            if self.training:
                # After a pass with gradient: autocast keeps its casts of the weights, which must be of the graph.
                drawn = sample(self.captioner, memory, samples=self.cider_samples, **self.limits)
                cider, log["reward"] = self.cider_loss(memory, drawn, batch["references"])
                loss, log["cider_loss"] = loss + self.cider_weight * cider, cider.detach()
        return {"loss": loss, **log}

    def predict(self, batch: dict) -> Tensor:
        """Captions of "pixels" uint8 (B, 3, H, W): token ids int64 (B, max_length - 1), without cls and sep, padded."""
        return self.caption(self.captioner.memory(normalize(batch["pixels"])))

    def caption(self, memory: Tensor) -> Tensor:
        """`predict` from an image memory (B, N, C)."""
        options = {"beam": self.beam, "published": self.published_search, **self.limits}
        tokens, _ = beam_search(self.captioner, memory, **options)
        hidden = (tokens == self.special.cls) | (tokens == self.special.sep)
        return tokens.masked_fill(hidden, self.special.pad)

    def cross_entropies(self, captioner: Captioner, memory: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Of every next token, float32 (rows, L), 0 where there is none; and where there is one, bool (rows, L). ids
        int64 and mask bool (rows, L), rows of one image of `memory` contiguous. Only where a token follows is the
        vocabulary scored."""
        labels = self.labels(ids)
        real = labels != -100
        logits = captioner.mlm(captioner.states(memory, ids, mask=mask)[real]).float()
        entropies = F.cross_entropy(logits, labels[real], reduction="none")
        return torch.zeros(ids.shape, device=ids.device).masked_scatter(real, entropies), real

    def labels(self, ids: Tensor) -> Tensor:
        """The next token of every position, int64 (rows, L), -100 where there is none."""
        following = F.pad(ids[:, 1:], (0, 1), value=self.special.pad)
        return following.masked_fill(following == self.special.pad, -100)

    def gold_loss(self, entropies: Tensor, real: Tensor, weights: Tensor) -> Tensor:
        """The mean over captions of their weighted cross-entropy per token; all (B, L)."""
        count = (~real).sum(1) + 1e-9 if self.gold_published else real.sum(1).clamp(min=1)
        return ((entropies * weights).sum(1) / count).mean()

    @torch.no_grad()
    def gold_weights(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Of every next token, float32 (B, L): its probability by the frozen copy times the mean probability of it
        and the tokens after it, at least `gold_floor`. pixels: normalised (B, 3, H, W)."""
        entropies, real = self.cross_entropies(self.frozen, self.frozen.memory(pixels), ids, mask)
        probability = ((-entropies).exp() + PROBABILITY_FLOOR) * real
        total, count = (x.flip(1).cumsum(1).flip(1) for x in (probability, real))
        return (probability * total / count.clamp(min=1)).clamp(min=self.gold_floor)

    def refresh_frozen(self, step: int) -> None:
        """Copy the weights at every step that is a multiple of `gold_refresh`."""
        if self.frozen is None or step % self.gold_refresh == 0:
            self.frozen = None  # freed before the copy is made
            self.frozen = Captioner(*(copy.deepcopy(part).eval().requires_grad_(False) for part in self.captioner))

    def cider_loss(self, memory: Tensor, drawn: Tensor, references: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """The policy gradient of drawn captions, int64 (B*K, L), and their mean reward. As published the baseline is 1
        and the sum over samples is divided by the number of images."""
        entropies, real = self.cross_entropies(self.captioner, memory, drawn, drawn != self.special.pad)
        log_probs = ((-entropies).exp() + PROBABILITY_FLOOR).log() * real
        mean = log_probs.sum(1) / (real.sum(1) + 1e-9)
        rewards = torch.as_tensor(self.reward(drawn, references), device=mean.device)
        return (mean * (100 - 100 * rewards)).sum().float() / len(memory), rewards.mean()

    def resume_state(self) -> dict[str, Tensor]:
        return nn.ModuleDict(self.frozen._asdict()).state_dict() if self.frozen else {}

    def load_resume_state(self, state: dict[str, Tensor]) -> None:
        if state:
            self.refresh_frozen(0)
            nn.ModuleDict(self.frozen._asdict()).load_state_dict(state)
