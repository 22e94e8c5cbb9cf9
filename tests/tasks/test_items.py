"""Pictures and texts as items."""

import torch
from colour_images import ColourImages

from fiber_cli.tasks.items import ImageSet, TextSet


def test_images_of_sources_are_resized_and_keep_their_ids():
    source = ColourImages(3)
    images = ImageSet([(source, 2), (source, 0)], (16, 24))
    assert images.ids == ["colours/2", "colours/0"]
    assert images.read(0)["pixels"].shape == (3, 16, 24)
    assert images.read(0)["pixels"].dtype == torch.uint8


def test_texts_are_padded_and_cut(tokenizer):
    texts = TextSet(["a", "a much longer text than that"], tokenizer, 5)
    short, long = texts.read(0), texts.read(1)
    assert short["ids"].shape == long["mask"].shape == (5,)
    assert (short["truncated"], long["truncated"]) == (0, 1)
    assert short["mask"].sum() == len(tokenizer("a")["input_ids"])
    assert type(short) is dict
    (batch,) = texts.loader(rank=0, world=1, batch_size=2, workers=0)
    assert batch["truncated"] == 1
