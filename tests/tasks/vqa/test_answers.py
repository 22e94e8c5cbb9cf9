"""Predictions in words."""

import numpy as np

from fiber_cli.tasks.vqa.answers import answer_texts


def test_labels_and_tokens_are_taken_for_one_another(tokenizer):
    assert answer_texts([np.int64(1), np.int64(0)], tokenizer, ("yes", "no")) == ["no", "yes"]
    rows = []
    for answer in ("on the left", "2"):
        ids = tokenizer(answer)["input_ids"]
        rows.append(np.array(ids + [tokenizer.pad_token_id] * (12 - len(ids))))
    assert answer_texts(rows, tokenizer, None) == ["on the left", "2"]
    assert answer_texts([], tokenizer, None) == []
