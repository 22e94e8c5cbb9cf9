"""Padding of batches."""

import json

import pytest
import torch

from fiber_cli.model.pixels import normalize, pad_batch


@pytest.fixture
def cases(shared):
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())


def test_batches_are_padded_as_published(cases):
    case = cases["collate"]
    images = [torch.ones((3, h, w), dtype=torch.uint8) for h, w in case["image_sizes_hw"]]
    pixels, sizes = pad_batch(images)
    assert list(pixels.shape) == case["padded_shape"]
    assert sizes.tolist() == case["image_sizes_hw"]
    assert pixels.flatten(1).sum(1).tolist() == case["nonzero_pixels_per_image"]
    for row, (height, width) in zip(pixels, sizes, strict=True):
        assert row[:, :height, :width].all()


def test_normalize_is_imagenets():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    wanted = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert torch.allclose(normalize(pixels).flatten(), torch.tensor(wanted))
