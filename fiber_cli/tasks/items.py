"""What is predicted: numbered items, each read once; `tasks.evalset` has those with a truth."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from fiber_cli.data.loader import make_loader
from fiber_cli.data.readers import collate
from fiber_cli.data.source import ImageSource, sample_id, usable
from fiber_cli.data.text import encode_one
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Item = dict[str, Any]
#: How many items are tried before a set is believed to be unreadable.
_PROBES = 32


class EvalItems(ABC):
    """Items by number. A subclass fills `ids`, the items' names, and gives `read`.

    `left_out` lists (id, reason) of what could not become an item; items that `read` finds unusable show up while
    loading.
    """

    ids: Sequence[str]
    left_out: Sequence[tuple[str, str]] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def check(self) -> None:
        """Reads one item as it is read when they are predicted. Raises UserError where there is none, or where none of
        32, spread over all, can be read."""
        for index in range(0, len(self), max(1, len(self) // _PROBES)):
            batch = self._batch([index])
            if len(batch["index"]):
                return
        reasons = [*self.left_out, *(batch["bad"] if len(self) else ())]
        why = f", such as {': '.join(reasons[0])}" if reasons else "; check the data set's paths"
        raise UserError(f"nothing to evaluate: no item could be read{why}")

    @abstractmethod
    def read(self, index: int) -> Item:
        """Tensors of one item, equal in shape for all items, and `truncated` where it has a text: whether it was cut.
        Raises `BadSample`."""

    def loader(self, *, rank: int, world: int, batch_size: int, workers: int) -> "DataLoader[Any]":
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

    def collate(self, indices: list[int], items: list[Item]) -> dict[str, Any]:
        """The batch of what `read` has made of the indices, at least one."""
        return collate([{"truncated": 0, "bad": [], **item} for item in items])


class ImageSet(EvalItems):
    """Images of sources by (source, number): `pixels` uint8 (3, H, W)."""

    def __init__(self, images: Sequence[tuple[ImageSource, int]], image_size: int | tuple[int, int]):
        self.images, self.transform = list(images), EvalTransform(image_size)
        self.ids = [sample_id(source, i) for source, i in self.images]

    def read(self, index: int) -> Item:
        source, i = self.images[index]
        return {"pixels": self.transform(source.image(i))}


class TextSet(EvalItems):
    """Texts: `ids` int64 (L,) and `mask` bool (L,)."""

    def __init__(self, texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", text_length: int):
        self.texts, self.tokenizer, self.text_length = list(texts), tokenizer, text_length
        self.ids = [str(number) for number in range(len(self.texts))]

    def read(self, index: int) -> Item:
        return {**encode_one(self.tokenizer, self.texts[index], self.text_length)}
