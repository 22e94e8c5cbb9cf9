"""Pre-training reads one caption an image, masked and whole, or every pair of them."""

import numpy as np
from colour_images import ColourImages

from fiber_cli.model.config import TINY
from fiber_cli.tasks.coarse.data import training_data
from fiber_cli.tasks.coarse.settings import CoarseSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.training_data import ReadingOptions


def data_of(tokenizer, captions, **settings):
    context = TaskContext(CoarseSettings("coarse", **settings), TINY, tokenizer, text_length=12)
    return training_data([ColourImages(4)], context, ReadingOptions("none", captions))


def test_samples_have_what_the_module_reads(tokenizer):
    data = data_of(tokenizer, "random", mlm_probability=0.5)
    sample = data.reader(data.sources[0], 0, np.random.default_rng(0))
    assert {"pixels", "ids", "mask", "mlm_ids", "mlm_labels", "image_key"} <= sample.keys()
    masked = sample["mlm_labels"] != -100
    assert masked.any()
    assert (sample["mlm_labels"][masked] == sample["ids"][masked]).all()


def test_captions_are_drawn_or_shown_each(tokenizer):
    assert len(data_of(tokenizer, "random").sources[0]) == 4
    assert len(data_of(tokenizer, "each").sources[0]) == 12


def test_labelled_positions_of_a_batch_are_found_by_its_collator(tokenizer):
    """Those of the first pairs alone where MLM looks at no more."""
    for pairs in (None, 2):
        data = data_of(tokenizer, "random", mlm_probability=0.5, mlm_pairs=pairs)
        samples = []
        for row in range(4):
            sample = data.reader(data.sources[0], row, np.random.default_rng(row))
            samples.append(sample | {"bad": []})
        batch = data.collate(samples)
        labels = batch["mlm_labels"]
        expected = []
        for row in range(pairs or 4):
            for column in range(labels.shape[1]):
                if labels[row, column] != -100:
                    expected.append(row * labels.shape[1] + column)
        assert batch["mlm_positions"].tolist() == expected
