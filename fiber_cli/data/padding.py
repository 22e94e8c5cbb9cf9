"""How wide the texts of a batch are: as its longest one, not as the longest that there may be.

Padding changes no number, since no token looks at it, so it is work for nothing.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

#: Widths are multiples of it, which matrix units are fastest at; few widths are also few compiled graphs.
MULTIPLE = 8
#: What has a column for every token in the batches of all readers of texts.
TOKEN_COLUMNS = ("ids", "mask", "mlm_ids", "mlm_labels")


def text_width(longest: int, most: int) -> int:
    """Columns for texts of up to `longest` tokens, at most `most`."""
    return min(most, -(-longest // MULTIPLE) * MULTIPLE)


def longest_text(mask: Tensor) -> int:
    """Tokens of the longest text. mask: bool (B, L), the real tokens, which come first."""
    return int(mask.sum(1).max())


def without_padding(batch: Mapping[str, Any], columns: Collection[str] = TOKEN_COLUMNS) -> dict[str, Any]:
    """The batch with those of its tensors (rows, L) that are named in `columns` cut to the width of its texts, whose
    real tokens "mask" bool (B, L) tells."""
    mask: Tensor = batch["mask"]
    width = text_width(longest_text(mask), mask.shape[1])
    cut = dict(batch)
    for name in columns:
        if name in batch:
            cut[name] = batch[name][:, :width].contiguous()
    return cut
