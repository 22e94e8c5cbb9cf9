"""Captions to train on, with all references of an image for the reward alone; and the table that the reward needs."""

import numpy as np
import pytest
from colour_images import ColourImages

from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY
from fiber_cli.tasks.caption.cider import document_frequency, read_document_frequency, wrap
from fiber_cli.tasks.caption.data import count_document_frequencies, training_data
from fiber_cli.tasks.caption.settings import CaptionSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.training_data import ReadingOptions


@pytest.mark.parametrize("objective", ["mle", "gold", "cider"])
def test_only_the_reward_gets_all_captions_of_an_image(tokenizer, objective):
    context = TaskContext(CaptionSettings("caption", objective=objective), TINY, tokenizer, text_length=12)
    sources = [ColourImages(3, captions=lambda i: ("a b", "c d"))]
    data = training_data(sources, context, ReadingOptions("none", "random"))
    samples = [data.reader(data.sources[0], i, np.random.default_rng(i)) for i in range(3)]
    assert samples[0]["pixels"].shape == (3, 64, 64)
    assert samples[0]["ids"].shape == (12,)
    batch = data.collate([sample | {"bad": []} for sample in samples])
    assert batch["pixels"].shape == (3, 3, 64, 64)
    assert batch.get("references") == ([("a b", "c d")] * 3 if objective == "cider" else None)


def test_document_frequencies_are_of_all_captions_that_can_be_read(tmp_path):
    def captions(i):
        if i == 1:
            raise BadSample("damaged")
        return (f"Dog {i}.", "a dog")

    said = count_document_frequencies([ColourImages(3, captions=captions), ColourImages(1, "b")], str(tmp_path / "df"))
    assert said == f"{tmp_path / 'df'}: n-grams of the captions of 3 images, 1 left out"
    texts = [["Dog 0.", "a dog"], ["Dog 2.", "a dog"], ["a ", "d e", "left f"]]
    expected = document_frequency([[wrap(text) for text in of_image] for of_image in texts])
    assert read_document_frequency(tmp_path / "df") == expected


def test_sources_without_captions_are_refused(tmp_path):
    from fiber_cli.data.sources.scenes import SceneDetection

    with pytest.raises(UserError, match="has no captions"):
        count_document_frequencies([SceneDetection("train", 2)], str(tmp_path / "df"))
