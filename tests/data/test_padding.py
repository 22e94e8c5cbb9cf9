"""Batches are as wide as their longest text, to the next multiple of 8."""

import pytest
import torch

from fiber_cli.data.padding import MULTIPLE, longest_text, text_width, without_padding
from fiber_cli.data.readers import collate


@pytest.mark.parametrize(
    ("longest", "most", "width"),
    [(1, 40, 8), (8, 40, 8), (9, 40, 16), (37, 40, 40), (40, 40, 40), (5, 6, 6), (9, 12, 12)],
)
def test_a_width_is_no_multiple_or_cuts_a_text(longest, most, width):
    assert text_width(longest, most) == width


def batch_of(lengths, most=40):
    mask = torch.arange(most) < torch.tensor(lengths)[:, None]
    ids = torch.where(mask, 7, 1)
    return {"ids": ids, "mask": mask, "labels": ids.clone(), "targets": torch.zeros(len(lengths), most)}


def test_a_token_is_lost_or_what_has_no_column_for_every_token_is_cut():
    whole = batch_of([3, 11, 6])
    cut = without_padding(whole)
    assert longest_text(whole["mask"]) == 11
    assert cut["ids"].shape == cut["mask"].shape == (3, 16)
    assert cut["mask"].sum(1).tolist() == [3, 11, 6]
    assert (cut["ids"] == 7).sum(1).tolist() == [3, 11, 6]
    assert cut["labels"].shape == cut["targets"].shape == (3, 40)
    assert without_padding(whole, ("ids", "mask", "labels"))["labels"].shape == (3, 16)
    assert whole["ids"].shape == (3, 40)


@pytest.mark.parametrize("lengths", [[40, 2], [33, 33]])
def test_a_batch_with_a_text_that_fills_it_is_cut(lengths):
    assert without_padding(batch_of(lengths))["ids"].shape[1] == 40


def test_readers_batches_have_the_width_of_their_longest_text():
    whole = batch_of([2, 9])
    samples = []
    for row in range(2):
        samples.append({"ids": whole["ids"][row], "mask": whole["mask"][row], "truncated": 0, "bad": []})
    assert collate(samples)["ids"].shape == (2, 16)
    assert collate(samples[:1])["mask"].shape == (1, MULTIPLE)
    assert collate([{"pixels": torch.zeros(2), "truncated": 0, "bad": []}])["pixels"].shape == (1, 2)
