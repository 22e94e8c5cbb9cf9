"""Sets of items: each is read once, by one rank, and bad ones are told."""

import numpy as np
import pytest
import torch

from fiber_cli.data.source import BadSample
from fiber_cli.tasks.evalset import Blind, EvalSet, PicturesWithTextSet, Score, by_index
from fiber_cli.tasks.items import TextSet


class Numbers(EvalSet):
    """Pictures that show their own number; numbers in `bad` cannot be read."""

    def __init__(self, count=7, bad=(), left_out=()):
        self.ids = [f"n{number}" for number in range(count)]
        self.bad, self.left_out = bad, left_out

    def read(self, index):
        if index in self.bad:
            raise BadSample("damaged")
        return {"pixels": torch.full((3, 2, 2), index), "number": torch.tensor(index), "truncated": index % 2}

    def score(self, predictions):
        return Score({"numbers/sum": float(sum(predictions.values()))})


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_every_item_is_read_by_one_rank(world):
    numbers = Numbers(bad=(2, 3))
    read, bad, truncated = [], [], 0
    for rank in range(world):
        for batch in numbers.loader(rank=rank, world=world, batch_size=2, workers=0):
            assert ("number" in batch) == bool(len(batch["index"]))
            if "number" in batch:
                assert torch.equal(batch["number"], batch["index"])
            read += batch["index"].tolist()
            bad += batch["bad"]
            truncated += batch["truncated"]
    assert read == [0, 1, 4, 5, 6]
    assert bad == [("n2", "damaged"), ("n3", "damaged")]
    assert truncated == 2


def test_shares_differ_by_one_at_most():
    shares = [len(Numbers(10).share(rank, 4)) for rank in range(4)]
    assert sorted(shares) == [2, 2, 3, 3]


def test_blind_exchanges_images_and_nothing_else():
    numbers = Numbers(left_out=[("x", "gone")])
    exchanged = Blind(numbers)
    assert exchanged.ids == numbers.ids
    assert exchanged.left_out == numbers.left_out
    for index in range(7):
        item = exchanged.read(index)
        assert item["number"] == index
        assert item["pixels"][0, 0, 0] == (index + 3) % 7
    assert exchanged.score({0: 1.0, 1: 2.0}) == numbers.score({0: 1.0, 1: 2.0})


def test_a_picture_whose_other_cannot_be_read_is_left_out_when_blind():
    exchanged = Blind(Numbers(bad=(3,)))
    (batch,) = exchanged.loader(rank=0, world=1, batch_size=9, workers=0)
    assert [name for name, _ in batch["bad"]] == ["n0", "n3"]


def test_pictures_with_texts_encode_as_texts_do(tokenizer):
    class Pictures(PicturesWithTextSet):
        def read(self, index):
            return self.encode("a")

        score = Numbers.score

    item = Pictures(tokenizer, 5, 16).read(0)
    expected = TextSet(["a"], tokenizer, 5).read(0)
    assert item.keys() == expected.keys()
    assert torch.equal(item["ids"], expected["ids"])


def test_predictions_come_in_the_order_of_the_items():
    rows = {10: np.zeros(1), 2: np.ones(1), 7: np.zeros(1)}
    assert [number for number, _ in by_index(rows)] == [2, 7, 10]
