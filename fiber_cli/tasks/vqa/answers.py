"""Predictions of questions as texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answer_texts(
    rows: Sequence[np.ndarray], tokenizer: "PreTrainedTokenizerBase", labels: Sequence[str] | None
) -> list[str]:
    """rows: of each question the number of an answer among `labels`, or, where there are none, the tokens of a
    generated one, int64 (L,)."""
    if labels is not None:
        return [labels[int(row)] for row in rows]
    texts = tokenizer.batch_decode([row.tolist() for row in rows], skip_special_tokens=True)
    return [" ".join(text.split()) for text in texts]
