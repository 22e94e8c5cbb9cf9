"""What is evaluated: numbered items, each read once, with the truth that predictions are held against."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from fiber_cli.data.loader import collate, make_loader
from fiber_cli.data.source import Source, sample_id, some_captions, usable
from fiber_cli.data.text import encode_one
from fiber_cli.data.transforms import EvalTransform


class Score(NamedTuple):
    """`metrics`: flat name → number, percentages as 0 to 100. `files`: name → content of what the task's community
    submits or looks at, text as it is, everything else as JSON. `notes`: lines for the reader, such as what was left
    out and why."""

    metrics: dict[str, float]
    files: dict[str, Any] = {}
    notes: list[str] = []


class EvalSet:
    """Items by number. A subclass fills `ids`, the items' names, and gives `read` and `score`.

    `left_out` lists (id, reason) of what could not become an item; items that `read` finds unusable show up while
    loading.
    """

    ids: list[str]
    left_out: Sequence[tuple[str, str]] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> dict[str, Any]:
        """Tensors of one item, equal in shape for all items, and `truncated` where it has a text: whether it was cut.
        Raises `BadSample`."""
        raise NotImplementedError

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """The metrics of the task's rows by item number; items without a row could not be read."""
        raise NotImplementedError

    def loader(self, *, rank: int, world: int, batch_size: int, workers: int) -> DataLoader:
        """Batches of this rank's share, in its order; no item is repeated to fill a batch or a rank.

        A batch holds `index` int64 (B,), the stacked tensors of `read`, `truncated` (how many texts were cut), and
        `bad`, the (id, reason) of items that cannot be read, which are in none of the tensors: a batch of such items
        alone has an empty `index` and no tensors.
        """
        return make_loader(self.share(rank, world), workers, batch_size=batch_size, collate_fn=self._batch)

    def share(self, rank: int, world: int) -> Sequence[int]:
        """The items of a rank, in the order in which it reads them."""
        return range(len(self) * rank // world, len(self) * (rank + 1) // world)

    def _batch(self, indices: list[int]) -> dict[str, Any]:
        kept, items, bad = usable(indices, self.read, self.ids.__getitem__)
        batch = self.collate(kept, items) if kept else {"truncated": 0}
        return batch | {"index": torch.tensor(kept, dtype=torch.int64), "bad": bad}

    def collate(self, indices: list[int], items: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of what `read` has made of the indices, at least one."""
        return collate([{"truncated": 0, "bad": [], **item} for item in items])


class Blind(EvalSet):
    """Another set's items, each with the pixels of an item half the set away: what a model scores that only has the
    text, or that always says the same."""

    def __init__(self, seen: EvalSet):
        self.seen, self.ids, self.left_out = seen, seen.ids, seen.left_out
        self.score = seen.score

    def read(self, index: int) -> dict[str, Any]:
        other = (index + len(self) // 2) % len(self)
        return self.seen.read(index) | {"pixels": self.seen.read(other)["pixels"]}


class ImageSet(EvalSet):
    """Images of sources by (source, number): `pixels` uint8 (3, H, W)."""

    def __init__(self, images: Sequence[tuple[Source, int]], image_size: int | tuple[int, int]):
        self.images, self.transform = list(images), EvalTransform(image_size)
        self.ids = [sample_id(source, i) for source, i in self.images]

    def read(self, index: int) -> dict[str, Any]:
        source, i = self.images[index]
        return {"pixels": self.transform(source.image(i))}


class TextSet(EvalSet):
    """Texts: `ids` int64 (L,) and `mask` bool (L,)."""

    def __init__(self, texts: Sequence[str], tokenizer, text_length: int):
        self.texts, self.tokenizer, self.text_length = list(texts), tokenizer, text_length
        self.ids = list(map(str, range(len(self.texts))))

    def read(self, index: int) -> dict[str, Any]:
        return encode_one(self.tokenizer, self.texts[index], self.text_length)


class RetrievalSet:
    """All images of the sources with all their captions, as an `ImageSet` and a `TextSet`.

    text_image: int64 (texts,), the image of each text. Images without a readable caption are in neither and listed in
    `left_out` as (id, reason).
    """

    def __init__(self, sources: Sequence[Source], tokenizer, text_length: int, image_size: int | tuple[int, int]):
        every = [(source, i) for source in sources for i in range(len(source))]
        images, captions, self.left_out = usable(
            every, lambda each: some_captions(*each), lambda each: sample_id(*each)
        )
        self.images = ImageSet(images, image_size)
        self.texts = TextSet([text for texts in captions for text in texts], tokenizer, text_length)
        self.text_image = np.array([n for n, texts in enumerate(captions) for _ in texts], dtype=np.int64)
