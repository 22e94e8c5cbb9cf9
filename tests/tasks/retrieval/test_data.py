"""Fine-tuning for retrieval reads one caption an image, and masks none."""

import numpy as np
from colour_images import ColourImages

from fiber_cli.model.config import TINY
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.retrieval.data import training_data
from fiber_cli.tasks.retrieval.settings import RetrievalSettings
from fiber_cli.tasks.training_data import ReadingOptions


def test_samples_are_pairs_without_masks(tokenizer):
    context = TaskContext(RetrievalSettings("retrieval"), TINY, tokenizer, text_length=12)
    data = training_data([ColourImages(4)], context, ReadingOptions("none", "each"))
    samples = [data.reader(data.sources[0], i, np.random.default_rng(0)) for i in range(2)]
    assert "mlm_ids" not in samples[0]
    assert samples[0]["image_key"] == samples[1]["image_key"], "two captions of one image"
