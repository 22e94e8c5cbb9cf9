"""Captions to train on, with all references of an image for the reward alone; and the table that the reward needs."""

import numpy as np
import pytest
from colour_images import ColourImages

from fiber_cli.config.resolve import resolve_recipe, shipped_recipes
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


def test_an_epoch_of_pairs_has_all_captions_of_the_image_as_references(tokenizer):
    """As published: every caption once, each with the reward of its whole image."""
    captions = {0: ("a b", "c d", "e f"), 1: ("one",)}
    context = TaskContext(CaptionSettings("caption", objective="cider"), TINY, tokenizer, text_length=12)
    sources = [ColourImages(2, captions=captions.__getitem__)]
    data = training_data(sources, context, ReadingOptions("none", "each"))
    (view,) = data.sources
    assert len(view) == 4
    samples = [data.reader(view, i, np.random.default_rng(0)) for i in range(4)]
    said = [tokenizer.decode(sample["ids"], skip_special_tokens=True).strip() for sample in samples]
    assert said == ["a b", "c d", "e f", "one"]
    assert [sample["references"] for sample in samples] == [captions[0]] * 3 + [captions[1]]
    assert data.remark is None


@pytest.mark.parametrize(("objective", "captions", "told"), [("cider", "random", True), ("mle", "random", False)])
def test_an_epoch_of_images_is_told_where_published_has_pairs(tokenizer, objective, captions, told):
    context = TaskContext(CaptionSettings("caption", objective=objective), TINY, tokenizer, text_length=12)
    data = training_data([ColourImages(3)], context, ReadingOptions("none", captions))
    assert ("data.captions=each" in (data.remark or "")) == told


def test_every_recipe_of_the_paper_goes_over_image_caption_pairs():
    for path in shipped_recipes().values():
        recipe = resolve_recipe(str(path), ())
        of_paper = not path.read_text().partition("# reproduces: ")[2].startswith("no")
        if of_paper and recipe.task.name in ("coarse", "retrieval", "caption"):
            assert recipe.data.captions == "each", path.stem


def test_frequencies_of_one_image_are_refused(tmp_path):
    with pytest.raises(UserError, match="captions of 1 images were read"):
        count_document_frequencies([ColourImages(1)], str(tmp_path / "df"))
    assert not (tmp_path / "df").exists()


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
