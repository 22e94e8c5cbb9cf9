"""Training samples of images with captions, and their batches."""

import pytest
import torch
from colour_images import ColourImages
from training_batches import train_batches

from fiber_cli.data.mixing import Mixture, TrainSet
from fiber_cli.data.readers import CaptionReader, caption_view, collate, speaks_of_sides
from fiber_cli.data.transforms import EvalTransform


def test_content_of_a_batch(tokenizer):
    mixture = Mixture([ColourImages(30, bad=[4, 5])], [1], seed=2)
    whole = {"global_batch": 30, "micro_batch": 30, "total_steps": 1}
    (batch,) = train_batches(mixture, tokenizer, **whole, augment="none", text_length=6)
    assert batch["pixels"].shape == (30, 3, 16, 16)
    assert batch["pixels"].dtype == torch.uint8
    for name in ("ids", "mlm_ids", "mlm_labels"):
        assert batch[name].shape == (30, 6)
        assert batch[name].dtype == torch.int64
    assert torch.equal(batch["mask"], batch["ids"] != tokenizer.pad_token_id)
    chosen = batch["mlm_labels"] != -100
    assert chosen.any()
    assert (batch["mlm_labels"][chosen] == batch["ids"][chosen]).all()
    assert (batch["mlm_ids"][~chosen] == batch["ids"][~chosen]).all()
    assert sorted(batch["bad"]) == [("colours/4", "not there"), ("colours/5", "not there")]
    entries = mixture.epoch(0).tolist()
    used = batch["pixels"][:, 0, 0, 0].tolist()  # the red value is the image's number
    assert [name == f"colours/{i}" for name, i in zip(batch["sample_ids"], used, strict=False)] == [True] * 30
    assert [a == b for a, b in zip(used, entries, strict=False)] == [i not in (4, 5) for i in entries]
    by_key = {key: set() for key in batch["image_key"].tolist()}
    for key, i in zip(batch["image_key"].tolist(), used, strict=False):
        by_key[key].add(i)
    assert batch["image_key"].dtype == torch.int64
    assert len(by_key) == len(set(used))
    assert all(len(numbers) == 1 for numbers in by_key.values())
    cut = batch["ids"][:, 5] == tokenizer.sep_token_id  # no caption has just 6 tokens
    assert batch["truncated"] == cut.sum() > 0


def test_captions_are_drawn_or_taken_in_turn(tokenizer):
    drawn = Mixture(caption_view([ColourImages(40, captions=lambda i: ("a", "b"))], "random"), [1], seed=0)
    data = TrainSet(drawn, CaptionReader(tokenizer, 8, 16, "none"))
    firsts = [[data[e, i]["ids"][1].item() for i in range(40)] for e in (0, 1)]
    a = tokenizer("a")["input_ids"][1]
    assert 8 < firsts[0].count(a) < 32
    assert firsts[0] != firsts[1]
    each = Mixture(caption_view([ColourImages(40, captions=lambda i: ("a", "b"))], "each"), [1], seed=0)
    data = TrainSet(each, CaptionReader(tokenizer, 8, 16, "none"))
    batch = collate([data[0, e] for e in each.epoch(0).tolist()])
    pairs = set(zip(batch["image_key"].tolist(), batch["ids"][:, 1].tolist(), strict=False))
    assert len(batch["ids"]) == 80 == len(pairs)
    assert len({key for key, _ in pairs}) == 40


def test_captions_with_sides_are_not_mirrored(tokenizer):
    seen = {}

    class Recorder(EvalTransform):
        def __call__(self, image, rng, flip):
            seen[image.getpixel((0, 0))[0]] = flip
            return super().__call__(image)

    texts = ["the cat left of it", "the RIGHT one", "a leftmost", "bright copyleft", "a dog"]
    mixture = Mixture([ColourImages(5, captions=lambda i: (texts[i],))], [1], seed=0)
    data = TrainSet(mixture, CaptionReader(tokenizer, 8, 16, "none"))
    data.reader.transform = Recorder(16)
    for i in range(5):
        data[0, i]
    assert seen == {0: False, 1: False, 2: False, 3: True, 4: True}


@pytest.mark.parametrize("text", ["the cat left of it", "the RIGHT one", "a leftmost"])
def test_texts_with_sides_are_told(text):
    assert speaks_of_sides(text)
    assert not speaks_of_sides("bright copyleft")


def test_references_are_all_captions_of_the_image(tokenizer):
    data = TrainSet(Mixture([ColourImages(3)], [1], 0), CaptionReader(tokenizer, 8, 16, "none", references=True))
    sample = data[0, 1]
    assert sample["references"] == ("a bc", "d e", "left f")
    assert collate([sample, data[0, 2]])["references"] == [sample["references"], ("a bcbc", "d e", "left f")]
    assert "mlm_ids" not in sample
