"""Samples of visual reasoning: one image or two, and which of the statements."""

import numpy as np
import pytest
import torch
from colour_images import ColourImages
from statement_files import statements_about_pairs, write_statements

from fiber_cli.data.mixing import Mixture, TrainSet
from fiber_cli.data.readers import collate
from fiber_cli.data.source import BadSample, sample_id
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.sources.statements import StatementFile
from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.nlvr2.data import StatementReader, have_equal_images, training_data
from fiber_cli.tasks.nlvr2.settings import Nlvr2Settings
from fiber_cli.tasks.training_data import ReadingOptions


@pytest.mark.parametrize("augment", ["none", "randaugment"])
def test_one_image_or_two_are_stacked(tmp_path, tokenizer, augment):
    rows = [{"image": "a.png", "sentence": "there is a dog", "identifier": "x", "label": True}]
    one, two = StatementFile(*write_statements(tmp_path, {"a.png": 50}, rows)), statements_about_pairs(tmp_path)
    reader, rng = StatementReader(tokenizer, 12, 32, augment), np.random.default_rng(0)
    for source, images in ((one, 1), (two, 2), (ScenesSource("val", 2, pairs=False), 1)):
        sample = reader(source, 0, rng)
        assert sample["pixels"].shape == (images, 3, 32, 32)
        assert sample["pixels"].dtype == torch.uint8
        assert sample["ids"].shape == sample["mask"].shape == (12,)
        assert sample["mask"].dtype == torch.bool
        assert sample["labels"].dtype == torch.int64
        assert sample["labels"].shape == ()
        assert sample["sample_ids"] == sample_id(source, 0)
    train_set = TrainSet(Mixture([two], [1.0], 0), reader)
    batch = collate([train_set[0, i] for i in range(3)])
    assert batch["pixels"].shape == (3, 2, 3, 32, 32)
    assert batch["labels"].tolist() == [1, 0, 0]
    assert batch["truncated"] == 0
    assert batch["sample_ids"] == [f"pairs/dev-1-{s}" for s in ("0-0", "1-0", "0-1")]


def test_left_stays_before_right_and_long_texts_are_cut(tmp_path, tokenizer):
    reader = StatementReader(tokenizer, 4, 32, "none")
    sample = reader(statements_about_pairs(tmp_path), 1, np.random.default_rng(0))
    assert [round(int(image[0, 9, 9]), -1) for image in sample["pixels"]] == [140, 180]
    assert sample["truncated"] == 1


def test_pictures_are_mirrored_only_where_no_side_is_spoken_of(tmp_path, tokenizer):
    reader, flips = StatementReader(tokenizer, 12, 32, "randaugment"), []

    def transform(image, rng, flip):
        flips.append(flip)
        return torch.zeros(3, 32, 32, dtype=torch.uint8)

    reader.transform = transform
    for i in (0, 2):
        reader(statements_about_pairs(tmp_path), i, np.random.default_rng(0))
    assert flips == [True, True, False, False]


def test_a_label_and_whole_images_are_needed(tmp_path, tokenizer):
    source = statements_about_pairs(tmp_path, broken=True)
    reader, rng = StatementReader(tokenizer, 12, 32, "none"), np.random.default_rng(0)
    with pytest.raises(BadSample, match="not a readable image"):
        reader(source, 1, rng)
    sample = TrainSet(Mixture([source], [1.0], 0), reader)[0, 1]
    assert sample["bad"][0][0] == "pairs/dev-1-1-0"
    assert sample["sample_ids"] != "pairs/dev-1-1-0"
    rows = [{"image": "a.png", "sentence": "t", "identifier": "x"}]
    with pytest.raises(BadSample, match="no statement with a label"):
        reader(StatementFile(*write_statements(tmp_path, {"a.png": 50}, rows)), 0, rng)


def test_statements_are_drawn_among_those_of_a_scene(tokenizer):
    source, reader = ScenesSource("val", 3), StatementReader(tokenizer, 40, 32, "none")
    label_of = {statement.text.replace(" ", ""): statement.label for statement in source.statements(0)}
    drawn = set()
    for seed in range(40):
        sample = reader(source, 0, np.random.default_rng(seed))
        text = "".join(tokenizer.decode(sample["ids"][sample["mask"]], skip_special_tokens=True).split())
        assert label_of[text] == bool(sample["labels"])
        drawn.add(text)
    assert drawn == label_of.keys()


def test_statements_about_one_image_and_about_two_do_not_mix(tokenizer):
    context = TaskContext(Nlvr2Settings("nlvr2"), TINY, tokenizer, 12)
    options = ReadingOptions("none", "random")
    two, one = ScenesSource("val", 2), ScenesSource("val", 2, pairs=False)
    data = training_data([two, two], context, options)
    assert data.labels is None
    assert data.notice is None
    assert data.reader(two, 0, np.random.default_rng(0))["pixels"].shape == (2, 3, *TINY.image_size)
    assert not have_equal_images([one, two])
    with pytest.raises(UserError, match="statements about one image and about two cannot be in one batch"):
        training_data([one, two], context, options)
    with pytest.raises(UserError, match=r"data\.train: colours has no statements"):
        training_data([ColourImages(2)], context, options)
