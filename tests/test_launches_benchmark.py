"""How many operations a training step gives to a GPU: none for each image, and no more than there were."""

import dataclasses
from functools import partial

import pytest

from benchmarks import fake_gpu, launches
from benchmarks.coarse_step import collated, random_batch
from benchmarks.detect import fine_config
from benchmarks.launches import count_step
from benchmarks.steps import fine_batch
from fiber_cli.model.config import TINY, FiberConfig
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.task import RegionTask

#: Operations of the tiny model's steps, forward and backward, with 5% for other versions of PyTorch.
MOST = {"coarse": 1712, "fine": 2485, "block": 534}


def fine(images: int, config: FiberConfig | None = None, blocks: int = 2) -> launches.StepCount:
    config = fine_config("tiny", TINY.text.vocab, drop_path=0.1) if config is None else config
    return count_step(partial(RegionTask, config, channels=32, blocks=blocks), fine_batch(config, (160, 224), images))


def test_each_image_has_operations_of_its_own():
    """Two more images: what each has of them is how its boxes are laid beside the others', for boxes and names."""
    two, four = fine(2), fine(4)
    assert four.total - two.total <= 2 * 2
    assert len(four.copies) == len(two.copies) == 1


def test_a_step_has_more_operations_than_before():
    coarse = count_step(partial(CoarseTask, TINY), collated(random_batch(TINY, 4)))
    assert coarse.total <= MOST["coarse"]
    assert fine(2).total <= MOST["fine"]


def test_a_block_of_the_head_has_more_operations_than_before():
    """On five levels, 13 convolutions with their norms, forward and backward."""
    assert fine(1, blocks=3).total - fine(1, blocks=2).total <= MOST["block"]


def with_windows_of_7() -> FiberConfig:
    image = dataclasses.replace(TINY.image, window=7, patch=4, depths=(2, 2, 2, 2), heads=(2, 2, 4, 8))
    return dataclasses.replace(TINY, image=image, image_size=(224, 224))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attention_copies_or_converts_what_is_added_to_its_logits(monkeypatch, precision):
    """Biases of windows of 49 tokens, which no multiple of 8 is, masks of texts of 13, and of captions."""
    seen = []

    def recorded(mask, query, key):
        seen.append((mask.dtype == query.dtype, fake_gpu.is_aligned(mask)))
        return as_bias(mask, query, key)

    as_bias = fake_gpu._as_bias
    monkeypatch.setattr(fake_gpu, "_as_bias", recorded)
    config = with_windows_of_7()
    batch = collated(random_batch(config, 2, length=13))
    count_step(partial(CoarseTask, config), batch, precision=precision)
    of_coarse = len(seen)
    of_fine = fine_config("tiny", TINY.text.vocab)
    wide = dataclasses.replace(of_fine, image=dataclasses.replace(of_fine.image, window=7))
    fine(2, wide)
    assert of_coarse > 20
    assert len(seen) > of_coarse + 10
    assert set(seen) == {(True, True)}
