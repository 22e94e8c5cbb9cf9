"""Beam search for the best captions of every image.

Shapes: B images that are still searched, K hypotheses of each, V vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.model.captioner import Captioner, Prompt, SpecialIds, Stepper
from fiber_cli.model.decoder_cache import ImageMemory


@torch.no_grad()
def beam_search(
    captioner: Captioner,
    memory: ImageMemory,
    *,
    beam: int,
    max_length: int,
    special: SpecialIds,
    as_published: bool = False,
    prompt: Prompt | None = None,
) -> tuple[Tensor, Tensor]:
    """The best caption of each of B images, from their memory: its tokens after `cls`, or after the image's `prompt`,
    int64 (B, max_length - 1), the ending one included, then padding; and their mean log-probability, float32 (B,).

    An ended hypothesis among the `beam` best is set aside with its score, and the live ones are the best that have not
    ended. An image is done, and no longer computed, when `beam` hypotheses have ended or the length is reached; the
    answer is the best of the ended and the live by mean log-probability.
    `as_published=True` is the search of the published code, whose lengths belong to slots instead of hypotheses and
    whose ended hypotheses fill all slots once they are the best.
    """
    tokens, scores = best_captions(
        captioner,
        memory,
        1,
        beam=beam,
        max_length=max_length,
        special=special,
        as_published=as_published,
        prompt=prompt,
    )
    return tokens[:, 0], scores[:, 0]


@torch.no_grad()
def best_captions(
    captioner: Captioner,
    memory: ImageMemory,
    count: int,
    *,
    beam: int,
    max_length: int,
    special: SpecialIds,
    as_published: bool = False,
    prompt: Prompt | None = None,
) -> tuple[Tensor, Tensor]:
    """The `count` best captions of each of B images that a search with at least so many hypotheses ends with, best
    first: tokens int64 (B, count, max_length - 1) and mean log-probabilities float32 (B, count), -inf where there are
    fewer. The rest: see `beam_search`, whose caption is the first of a search of the same width."""
    stepper = Stepper(captioner, memory, max(beam, count), special, prompt)
    if as_published:
        return _published_search(stepper, count, max_length)
    return _search(stepper, count, max_length)


class Answers:
    """The best captions of each image so far, best first: `tokens` int64 (images, count, length), padded, and `scores`
    (images, count), -inf where there is none yet."""

    def __init__(self, memory: ImageMemory, count: int, length: int, pad: int):
        self.pad = pad
        self.tokens = torch.full((len(memory), count, length), pad, device=memory.device)
        self.scores = torch.full((len(memory), count), -torch.inf, device=memory.device)

    def update(self, images: Tensor, tokens: Tensor, scores: Tensor) -> None:
        """Take captions (B, C, at most length) of the images numbered `images` (B,) where their scores (B, C) are
        better; of equal ones the earlier stays."""
        _, count, length = self.tokens.shape
        padded = F.pad(tokens, (0, length - tokens.shape[2]), value=self.pad)
        all_scores = torch.cat([self.scores[images], scores], 1)
        all_tokens = torch.cat([self.tokens[images], padded], 1)
        order = all_scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        self.scores[images] = all_scores.gather(1, order)
        self.tokens[images] = all_tokens.gather(1, order[..., None].expand(-1, -1, length))


class Continuations(NamedTuple):
    """Hypotheses with one more token, best first, (B, candidates) each: `totals`, the sums of their log-probabilities;
    `parents`, which of the K hypotheses they go on with; `tokens`, the new one."""

    totals: Tensor
    parents: Tensor
    tokens: Tensor


def _search(stepper: Stepper, count: int, max_length: int) -> tuple[Tensor, Tensor]:
    beam, special = stepper.captions_per_image, stepper.special
    answers = Answers(stepper.memory, count, max_length - 1, special.pad)
    images = torch.arange(len(stepper.memory), device=stepper.memory.device)
    finished = torch.zeros_like(images)
    scores = _scores_before_the_first_token(stepper)
    for length in range(1, max_length):
        candidates = _best_candidates(stepper, scores)
        totals, parents, tokens = candidates
        ended = special.ends(tokens)
        eligible = ended & totals.isfinite()
        eligible[:, beam:] = False
        finished = finished + eligible.sum(1)
        done = (finished >= beam) | (length == max_length - 1)
        eligible |= done[:, None] & ~ended

        means = (totals / length).masked_fill(~eligible, -torch.inf)
        best = means.argsort(dim=1, descending=True, stable=True)[:, :count]
        answers.update(images, _captions(stepper, candidates, best), means.gather(1, best))
        # One number that the host waits for.
        done_count = int(done.sum())
        if done_count == len(done):
            break

        live = ended.int().argsort(dim=1, stable=True)[:, :beam]
        scores = totals.masked_fill(ended, -torch.inf).gather(1, live)
        stepper.append(tokens.gather(1, live), parents.gather(1, live))
        if done_count:
            searched = ~done
            images, scores, finished = images[searched], scores[searched], finished[searched]
            stepper.keep_images(searched)
    return answers.tokens, answers.scores


def _scores_before_the_first_token(stepper: Stepper) -> Tensor:
    """Log-probabilities (B, K): an image's hypotheses are equal, so that the first of them stands for all."""
    shape = (len(stepper.memory), stepper.captions_per_image)
    scores = torch.full(shape, -torch.inf, device=stepper.memory.device)
    scores[:, 0] = 0.0
    return scores


def _best_candidates(stepper: Stepper, scores: Tensor) -> Continuations:
    """The 3 * K best continuations of hypotheses with log-probabilities `scores` (B, K). With two ending tokens they
    hold K that have not ended."""
    images, beam = scores.shape
    log_probs = stepper.log_probs()
    vocabulary = log_probs.shape[1]
    totals = (scores.flatten()[:, None] + log_probs).view(images, -1)
    best, index = totals.topk(min(3 * beam, beam * vocabulary))
    return Continuations(best, index // vocabulary, index % vocabulary)


def _captions(stepper: Stepper, candidates: Continuations, best: Tensor) -> Tensor:
    """Tokens after `cls` of each image's candidates numbered `best` (B, C), int64 (B, C, length)."""
    images = torch.arange(len(best), device=best.device)[:, None]
    hypotheses = stepper.tokens.view(len(best), stepper.captions_per_image, -1)
    parents = candidates.parents.gather(1, best)
    earlier = hypotheses[images, parents, 1:]
    last = candidates.tokens.gather(1, best)
    return torch.cat([earlier, last[..., None]], 2)


def _published_search(stepper: Stepper, count: int, max_length: int) -> tuple[Tensor, Tensor]:
    """Images stay until all are done, because the ended slots of one go on being sorted while others are live."""
    beam, special = stepper.captions_per_image, stepper.special
    scores = _scores_before_the_first_token(stepper)
    lengths = torch.zeros_like(scores)
    ended = torch.zeros_like(scores, dtype=torch.bool)
    for _ in range(1, max_length):
        log_probs_BKV = stepper.log_probs().view(*scores.shape, -1)
        log_probs_BKV = log_probs_BKV.masked_fill(ended[..., None], 0.0)
        vocabulary = log_probs_BKV.shape[2]
        totals_BKV = scores[..., None] + log_probs_BKV
        lengths = lengths + ~ended
        means_BKV = totals_BKV / (lengths + 1e-9)[..., None]
        means, index = means_BKV.flatten(1).topk(beam)
        scores = totals_BKV.flatten(1).gather(1, index)
        parents, tokens = index // vocabulary, index % vocabulary
        tokens = tokens.masked_fill(ended.gather(1, parents), special.pad)
        ended = special.ends(tokens)
        stepper.append(tokens, parents)
        if ended.all():
            break
    of_each_image = stepper.padded(max_length).view(len(scores), beam, -1)
    return of_each_image[:, :count, 1:], means[:, :count]
