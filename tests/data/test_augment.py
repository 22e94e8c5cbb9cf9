"""RandAugment's operations and how often they come."""

import numpy as np
import torch
from image_files import photograph

from fiber_cli.data.augment import OPERATIONS, rand_augment
from fiber_cli.data.transforms import EvalTransform


def test_every_operation_of_randaugment():
    image = photograph(96, 96)
    original = np.asarray(image).astype(int)
    results = [np.asarray(op(image, 0.7, 0.7)).astype(int) for op in OPERATIONS]
    assert len(results) == 10
    assert all(result.shape == original.shape for result in results)
    assert (results[0] == original).all()
    assert results[1][..., 0].min() == 0
    assert results[1][..., 0].max() == 255
    assert np.abs(results[3] - np.clip(original * 1.36, 0, 255)).max() <= 1  # brightness
    shift = 0.7 * 96 / 38.4  # 1.75 pixels: red is 255 / 96 a pixel
    middle = (results[7] - original)[20:-20, 20:-20, 0]
    assert abs(middle.mean() - shift * 255 / 96) < 0.6
    turned = np.asarray(image.rotate(21)).astype(int)
    assert np.abs(results[9] - turned)[30:60, 30:60].mean() < 2
    moved = [np.abs(result - original).mean() for result in results]
    assert min(moved[1:4]) > 0
    assert min(moved[5:]) > 1


def test_a_quarter_to_a_third_of_the_pictures_stay_as_they_are():
    # Half of the operations are left out: of 2 the chance that both are, or that both are identity, is > 1/4.
    pixels = EvalTransform(96)(photograph(96, 96))
    results = [rand_augment(pixels, np.random.default_rng(seed)) for seed in range(400)]
    assert all(result.shape == pixels.shape and result.dtype == torch.uint8 for result in results)
    same = np.mean([torch.equal(result, pixels) for result in results])
    assert 0.22 < same < 0.40
