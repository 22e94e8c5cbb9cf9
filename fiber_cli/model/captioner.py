"""Captions from an image: beam search and sampling, one token a step over the decoder's cache.

Shapes: B images, K rows of each (contiguous), L text length, N image tokens, C image and D joint width, V vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.model.fusion import DecoderCache, FusedEncoder
from fiber_cli.model.heads import MlmHead, PairPooler


class Captioner(NamedTuple):
    """The modules that caption: text states of the encoder go through the pooler's transform to the vocabulary."""

    encoder: FusedEncoder
    pool: PairPooler
    mlm: MlmHead

    def memory(self, pixels: Tensor) -> Tensor:
        """Normalised RGB (B, 3, H, W) -> image memory (B, N, C): fusion off, no final LayerNorm."""
        return self.encoder.image_top(self.encoder.image_stem(pixels)).flatten(1, 2)

    def states(
        self, memory: Tensor, ids: Tensor, *, mask: Tensor | None = None, cache: DecoderCache | None = None
    ) -> Tensor:
        """What the vocabulary head reads, (B*K, L, D), from ids int64 (B*K, L) and bool `mask` (see `decode`)."""
        return self.pool.text_transform(self.encoder.decode(memory, ids, cache, mask))


class SpecialIds(NamedTuple):
    """Token ids. A caption starts with `cls` and ends with `sep` or `pad`; `mask` is never generated."""

    cls: int
    sep: int
    pad: int
    mask: int

    def ends(self, tokens: Tensor) -> Tensor:
        return (tokens == self.sep) | (tokens == self.pad)


class Stepper:
    """`rows` captions of each image, `tokens` int64 (B*K, length), that grow by one token a step."""

    def __init__(self, captioner: Captioner, memory: Tensor, rows: int, special: SpecialIds):
        self.captioner, self.memory, self.rows, self.special = captioner, memory, rows, special
        self.cache = DecoderCache(captioner.encoder.config.text.layers)
        self.tokens = torch.full((len(memory) * rows, 1), special.cls, device=memory.device)

    def log_probs(self) -> Tensor:
        """Of the next token, float32 (B*K, V). Called once for every length."""
        logits = self.captioner.mlm(self.states()).float()
        logits[:, self.special.mask] = -torch.inf
        return logits.log_softmax(1)

    def states(self) -> Tensor:
        return self.captioner.states(self.memory, self.tokens[:, -1:], cache=self.cache)[:, 0]

    def append(self, tokens: Tensor, parents: Tensor | None = None) -> None:
        """Add `tokens` int64 (B, K) to the captions numbered `parents` (B, K) among their image's (None: each own)."""
        if parents is not None:
            first = torch.arange(len(parents), device=parents.device)[:, None] * self.rows
            self._keep((first + parents).flatten())
        self.tokens = torch.cat([self.tokens, tokens.reshape(-1, 1)], 1)

    def keep_images(self, images: Tensor) -> None:
        """Go on with the images where bool (B,) is True alone."""
        self._keep(images.repeat_interleave(self.rows))
        self.memory = self.memory[images]
        self.cache.memory = {layer: (k[images], v[images]) for layer, (k, v) in self.cache.memory.items()}

    def padded(self, length: int) -> Tensor:
        return F.pad(self.tokens, (0, length - self.tokens.shape[1]), value=self.special.pad)

    def _keep(self, rows: Tensor) -> None:
        self.cache.reorder(rows)
        self.tokens = self.tokens[rows]


@torch.no_grad()
def beam_search(
    captioner: Captioner, memory: Tensor, *, beam: int, max_length: int, special: SpecialIds, published: bool = False
) -> tuple[Tensor, Tensor]:
    """The best caption of each image memory (B, N, C): its tokens after `cls`, int64 (B, max_length - 1), the ending one
    included, then padding; and their mean log-probability, float32 (B,).

    An ended hypothesis among the `beam` best is set aside with its score, and the live ones are the best that have not
    ended. An image is done, and no longer computed, when `beam` hypotheses have ended or the length is reached; the
    answer is the best of the ended and the live by mean log-probability.
    `published=True` is the search of the published code, whose lengths belong to slots instead of hypotheses and whose
    ended hypotheses fill all slots once they are the best.
    """
    stepper, images = Stepper(captioner, memory, beam, special), torch.arange(len(memory), device=memory.device)
    scores = torch.full((len(memory), beam), -torch.inf, device=memory.device)
    best_scores, best_tokens = scores[:, 0].clone(), stepper.padded(max_length)[::beam, 1:].clone()
    scores[:, 0] = 0.0  # the first row stands for all, which are equal before the first token
    if published:
        return _published_search(stepper, scores, max_length)
    finished = torch.zeros_like(images)
    for length in range(1, max_length):
        total = (scores.flatten()[:, None] + stepper.log_probs()).view(len(images), -1)
        vocabulary = total.shape[1] // beam
        # With two ending tokens, 3 * beam candidates hold `beam` that have not ended.
        total, index = total.topk(min(3 * beam, total.shape[1]))
        parents, tokens = index // vocabulary, index % vocabulary
        ended = special.ends(tokens)
        answers = ended & total.isfinite()
        answers[:, beam:] = False
        finished = finished + answers.sum(1)
        done = (finished >= beam) | (length == max_length - 1)
        answers |= done[:, None] & ~ended

        score, which = (total / length).masked_fill(~answers, -torch.inf).max(1)
        row, better = torch.arange(len(images), device=images.device), score > best_scores[images]
        start = stepper.tokens.view(len(images), beam, length)[row, parents[row, which], 1:]
        best_scores[images[better]] = score[better]
        # Later answers are longer, so that nothing of an earlier one remains.
        best_tokens[images[better], :length] = torch.cat([start, tokens[row, which, None]], 1)[better]
        if done.all():
            break

        live = ended.int().argsort(dim=1, stable=True)[:, :beam]
        scores = total.masked_fill(ended, -torch.inf).gather(1, live)
        stepper.append(tokens.gather(1, live), parents.gather(1, live))
        if done.any():
            images, scores, finished = images[~done], scores[~done], finished[~done]
            stepper.keep_images(~done)
    return best_tokens, best_scores


def _published_search(stepper: Stepper, scores: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
    """Images stay until all are done, because the ended slots of one go on being sorted while others are live."""
    lengths, ended = torch.zeros_like(scores), torch.zeros_like(scores, dtype=torch.bool)
    for _ in range(1, max_length):
        log_probs = stepper.log_probs().view(*scores.shape, -1).masked_fill(ended[..., None], 0.0)
        total, lengths = scores[..., None] + log_probs, lengths + ~ended
        keys, index = (total / (lengths + 1e-9)[..., None]).flatten(1).topk(stepper.rows)
        scores = total.flatten(1).gather(1, index)
        parents, tokens = index // total.shape[2], index % total.shape[2]
        tokens = tokens.masked_fill(ended.gather(1, parents), stepper.special.pad)
        ended = stepper.special.ends(tokens)
        stepper.append(tokens, parents)
        if ended.all():
            break
    return stepper.padded(max_length)[:: stepper.rows, 1:], keys[:, 0]


@torch.no_grad()
def sample(captioner: Captioner, memory: Tensor, *, samples: int, max_length: int, special: SpecialIds) -> Tensor:
    """Captions drawn token by token, int64 (B*samples, max_length): `cls`, tokens, the ending one, padding."""
    stepper = Stepper(captioner, memory, samples, special)
    ended = torch.zeros(len(stepper.tokens), dtype=torch.bool, device=memory.device)
    for _ in range(1, max_length):
        chances = stepper.log_probs().exp()
        # torch.multinomial, but for NaN, at which that ends the process on a GPU instead of giving a NaN loss.
        drawn = (chances / torch.empty_like(chances).exponential_()).argmax(1).masked_fill(ended, special.pad)
        ended = ended | special.ends(drawn)
        stepper.append(drawn)
        if ended.all():
            break
    return stepper.padded(max_length)
