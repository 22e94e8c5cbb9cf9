"""What captioning keeps between two tokens, so that each step computes its new token alone.

Shapes: B texts, L tokens seen so far, M images, N image tokens, h heads, d channels a head.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class KeyValues(NamedTuple):
    """Keys and values of one attention, (rows, h, tokens, d) each."""

    keys: Tensor
    values: Tensor

    def select(self, rows: Tensor) -> "KeyValues":
        """The rows that an index, int64, or a choice, bool (rows,), names."""
        return KeyValues(self.keys[rows], self.values[rows])


class PairedMemory:
    """What each fused text layer reads of M images, by the layer's number: (M, N, C), of which N and C differ."""

    def __init__(self, layers: Mapping[int, Tensor]):
        self.layers = dict(layers)
        first = next(iter(self.layers.values()))
        self.device = first.device
        self._images = len(first)

    def __len__(self) -> int:
        """Images."""
        return self._images

    def __getitem__(self, images: Tensor) -> "PairedMemory":
        """Of the images that an index, int64, or a choice, bool (M,), names."""
        return PairedMemory({number: memory[images] for number, memory in self.layers.items()})


#: What a caption's tokens read of M images: the last map (M, N, C) in all layers, or each layer its own.
ImageMemory = Tensor | PairedMemory


class LayerCache:
    """Self-attention of one text layer: the keys and values of the tokens that it has seen."""

    def __init__(self) -> None:
        self.past: KeyValues | None = None

    def extend(self, new: KeyValues) -> KeyValues:
        """Those of all tokens up to the `new` ones, included."""
        if self.past is None:
            self.past = new
        else:
            keys = torch.cat([self.past.keys, new.keys], 2)
            values = torch.cat([self.past.values, new.values], 2)
            self.past = KeyValues(keys, values)
        return self.past

    def select(self, texts: Tensor) -> None:
        if self.past is not None:
            self.past = self.past.select(texts)


class DecoderCache:
    """The caches of all text layers; by the number of a fused layer the keys and values (M, h, N, d) of the image
    memory; and of every text which tokens are real, bool (B, L), and how many were no padding, int64 (B, 1)."""

    def __init__(self, layers: int):
        self.layers = [LayerCache() for _ in range(layers)]
        self.image_kv: dict[int, KeyValues] = {}
        self.seen_B1: Tensor | int = 0
        self.real_BL: Tensor | None = None

    def add_tokens(self, real: Tensor, unpadded: Tensor) -> tuple[Tensor, Tensor | int]:
        """Take in new tokens, bool (B, new) both; return which of all are real, (B, L), and how many preceded the new
        ones."""
        seen_before = self.seen_B1
        self.seen_B1 = seen_before + unpadded.sum(1, keepdim=True)
        if self.real_BL is not None:
            real = torch.cat([self.real_BL, real], 1)
        self.real_BL = real
        return real, seen_before

    def reorder(self, texts: Tensor) -> None:
        """Keep the given texts, int64 or bool, repeated or permuted: the survivors of a beam step. Beams must stay
        beside their image."""
        assert isinstance(self.seen_B1, Tensor), "no token has been decoded"
        assert self.real_BL is not None
        for layer in self.layers:
            layer.select(texts)
        self.seen_B1 = self.seen_B1[texts]
        self.real_BL = self.real_BL[texts]

    def keep_images(self, images: Tensor) -> None:
        """Keep the image memories where bool (M,) is True; their texts are kept by `reorder`."""
        self.image_kv = {layer: key_values.select(images) for layer, key_values in self.image_kv.items()}
