"""What generates texts about an image, captions or answers, one token a step over the decoder's cache.

Shapes: B images, K captions of each (contiguous), L text length, N image tokens, C image and D joint width, V
vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.model.decoder_cache import DecoderCache, ImageMemory
from fiber_cli.model.fusion import FusedEncoder
from fiber_cli.model.heads import MlmHead, PairPooler


class Captioner(NamedTuple):
    """The modules that caption: text states of the encoder go through the pooler's transform to the vocabulary."""

    encoder: FusedEncoder
    pool: PairPooler
    mlm: MlmHead

    def memory(self, pixels: Tensor) -> ImageMemory:
        """Normalised RGB (B, 3, H, W) -> image memory of B images: fusion off, no final LayerNorm."""
        return self.encoder.memory(self.encoder.image_stem(pixels))

    def states(
        self, memory: ImageMemory, ids: Tensor, *, mask: Tensor | None = None, cache: DecoderCache | None = None
    ) -> Tensor:
        """What the vocabulary head reads, (B*K, L, D), from ids int64 (B*K, L) and bool `mask` (see `decode`)."""
        tokens = self.encoder.decode(memory, ids, cache, mask)
        return self.pool.text_transform(tokens)


class SpecialIds(NamedTuple):
    """Token ids. A caption starts with `cls` and ends with `sep` or `pad`; `mask` is never generated."""

    cls: int
    sep: int
    pad: int
    mask: int

    def ends(self, tokens: Tensor) -> Tensor:
        """Which of the tokens end a caption, bool of their shape."""
        return (tokens == self.sep) | (tokens == self.pad)


class Prompt(NamedTuple):
    """Texts that are gone on with, one an image: ids int64 (B, L) and mask bool (B, L), True for the real tokens, which
    come first."""

    ids: Tensor
    mask: Tensor


class Stepper:
    """K captions of each image that grow by one token a step: `tokens` int64 (B*K, length), at first `cls`, or the last
    token of the image's prompt, the others of which are in the cache."""

    def __init__(
        self,
        captioner: Captioner,
        memory: ImageMemory,
        captions_per_image: int,
        special: SpecialIds,
        prompt: Prompt | None = None,
    ):
        self.captioner, self.memory, self.special = captioner, memory, special
        self.captions_per_image = captions_per_image
        self.cache = DecoderCache(captioner.encoder.config.decoder_layers)
        first = torch.full((len(memory),), special.cls, device=memory.device)
        if prompt is not None:
            first = self._read(prompt)
        self.tokens = first.repeat_interleave(captions_per_image)[:, None]

    def _read(self, prompt: Prompt) -> Tensor:
        """Take in all tokens of the prompts but the last ones, which are returned, int64 (B,)."""
        images = torch.arange(len(prompt.ids), device=prompt.ids.device)
        last = prompt.mask.sum(1) - 1
        earlier = prompt.mask.clone()
        earlier[images, last] = False
        width = max(1, int(last.max()))
        earlier = earlier[:, :width]
        ids = prompt.ids[:, :width].masked_fill(~earlier, self.special.pad)
        self.captioner.encoder.decode(self.memory, ids, self.cache, earlier)
        self.cache.reorder(images.repeat_interleave(self.captions_per_image))
        return prompt.ids[images, last]

    def log_probs(self) -> Tensor:
        """Of the next token, float32 (B*K, V). Called once for every length."""
        logits = self.captioner.mlm(self.states()).float()
        logits[:, self.special.mask] = -torch.inf
        return logits.log_softmax(1)

    def states(self) -> Tensor:
        """Of the last token, (B*K, D)."""
        last = self.tokens[:, -1:]
        return self.captioner.states(self.memory, last, cache=self.cache)[:, 0]

    def append(self, tokens: Tensor, parents: Tensor | None = None) -> None:
        """Add `tokens` int64 (B, K) to the captions numbered `parents` (B, K) among their image's, or, without
        `parents`, each to its own."""
        if parents is not None:
            images = torch.arange(len(parents), device=parents.device)
            first_caption = images[:, None] * self.captions_per_image
            self.select((first_caption + parents).flatten())
        self.tokens = torch.cat([self.tokens, tokens.reshape(-1, 1)], 1)

    def keep_images(self, images: Tensor) -> None:
        """Go on with the images where bool (B,) is True alone."""
        self.select(images.repeat_interleave(self.captions_per_image))
        self.memory = self.memory[images]
        self.cache.keep_images(images)

    def select(self, captions: Tensor) -> None:
        """Go on with the given captions, int64 or bool, which stay beside their image."""
        self.cache.reorder(captions)
        self.tokens = self.tokens[captions]

    def padded(self, length: int) -> Tensor:
        """The tokens with padding up to `length`, int64 (B*K, length)."""
        missing = length - self.tokens.shape[1]
        return F.pad(self.tokens, (0, missing), value=self.special.pad)
