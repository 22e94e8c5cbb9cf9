"""The evaluation resize and the training transform."""

import numpy as np
import torch
from image_files import photograph
from PIL import Image

from fiber_cli.data.transforms import TRANSFORMS, EvalTransform, TrainTransform, random_crop


def test_evaluation_resizes_to_a_square_bicubically():
    pixels = EvalTransform(32)(photograph())
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 32, 32)
    assert pixels.is_contiguous()
    red, green = pixels[0].float(), pixels[1].float()
    assert (red.diff(dim=1) > 0).all()
    assert (green.diff(dim=0) > 0).all()
    assert EvalTransform((16, 48))(photograph()).shape == (3, 16, 48)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    for size in (32, 128):
        pillow = np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        difference = np.abs(EvalTransform(size)(noise).permute(1, 2, 0).numpy() - pillow)
        assert difference.max() <= 2
        assert difference.mean() < 0.05


def test_training_transform_depends_on_its_generator_only():
    transform = TrainTransform(32)
    a, b, c = (transform(photograph(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == (3, 32, 32)
    assert a.dtype == torch.uint8


def test_mirroring_happens_half_the_time_and_can_be_forbidden():
    def mirrored(seed: int, flip: bool) -> bool:
        pixels = TrainTransform(32)(photograph(), np.random.default_rng(seed), flip=flip).float()
        return bool(pixels[0, :, :10].mean() > pixels[0, :, -10:].mean())

    share = np.mean([mirrored(seed, True) for seed in range(200)])
    assert 0.38 < share < 0.62
    assert not any(mirrored(seed, False) for seed in range(200))


def test_crops_keep_scale_and_ratio():
    rng = np.random.default_rng(0)
    for _ in range(300):
        left, top, right, bottom = random_crop((200, 150), rng)
        width, height = right - left, bottom - top
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 150
        assert 0.49 <= width * height / 30_000 <= 1
        assert 0.73 <= width / height <= 1.36
    left, top, right, bottom = random_crop((1000, 10), rng)  # nothing fits: the central 4:3 box
    assert (right - left, bottom - top) == (13, 10)
    assert left == (1000 - 13) // 2
    assert random_crop((1, 1), rng) == (0, 0, 1, 1)


def test_recipes_name_the_two_transforms():
    assert {name: type(transform(16)) for name, transform in TRANSFORMS.items()} == {
        "none": EvalTransform,
        "randaugment": TrainTransform,
    }
