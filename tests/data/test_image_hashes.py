"""Perceptual hashes: how far they lie apart, and which are near."""

import numpy as np
import pytest
from image_files import encoded, photograph
from PIL import Image

from fiber_cli.data.image_hashes import image_hash, near, source_hashes
from fiber_cli.data.sources.karpathy import KarpathySource


def distance(left: int, right: int) -> int:
    return (left ^ right).bit_count()


def test_a_copy_is_far_and_another_picture_near():
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((300, 200), 2) for _ in range(4)]
    hashes = [image_hash(picture) for picture in noise]
    for picture, value in zip(noise, hashes, strict=True):
        assert distance(image_hash(picture.resize((150, 100), 2)), value) <= 4
    for i in range(4):
        assert all(distance(hashes[i], hashes[j]) > 16 for j in range(i))


@pytest.mark.parametrize("most", [0, 1, 4, 9])
def test_a_near_pair_is_missed(most):
    """Against every pair compared."""
    rng = np.random.default_rng(most)
    left = rng.integers(0, 2**63, 60, np.uint64)
    right = np.concatenate([rng.integers(0, 2**63, 40, np.uint64), left[:20]])
    for number in range(20):
        for bit in rng.choice(64, number % 11, replace=False):
            right[40 + number] ^= np.uint64(1) << np.uint64(bit)
    wanted = []
    for i, one in enumerate(left.tolist()):
        for j, other in enumerate(right.tolist()):
            if distance(one, other) <= most:
                wanted.append((i, j, distance(one, other)))
    pairs = near(left, right, most)
    assert list(zip(*(column.tolist() for column in pairs), strict=True)) == wanted
    assert near(left, right[:0], most).left.size == 0


def test_a_picture_is_hashed_again(tmp_path, monkeypatch):
    """They are kept, but for those that could not be read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = ", ".join(f'{{"filename": "{i}.jpg", "split": "train", "sentences": [{{"raw": "x"}}]}}' for i in range(3))
    (tmp_path / "d.json").write_text(f'{{"images": [{images}]}}')
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(encoded(photograph(100 + i, 80), "JPEG"))
    source = KarpathySource(tmp_path / "d.json", tmp_path)
    first = source_hashes(source)
    assert first.samples.tolist() == [0, 1]
    assert first.unreadable == 1
    (tmp_path / "0.jpg").unlink()
    (tmp_path / "2.jpg").write_bytes(encoded(photograph(90, 90), "JPEG"))
    again = source_hashes(source)
    assert again.samples.tolist() == [0, 1, 2]
    assert again.hashes[:2].tolist() == first.hashes.tolist()
