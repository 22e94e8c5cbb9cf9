"""What pre-training shows of held-out pictures."""

import json

import pytest
from image_files import encoded
from PIL import Image

from fiber_cli.data.dedup import BY_HASH, BY_NAME, duplicates, exclude_json, held_out_pictures
from fiber_cli.data.exclude import without_excluded
from fiber_cli.data.sources.karpathy import KarpathySource


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def source(folder, name, **pictures):
    """File (without ending) → seed of what is in it, None for one that cannot be read."""
    images = []
    (folder / name).mkdir()
    for file, seed in pictures.items():
        content = b"no picture"
        if seed is not None:
            palette = [(37 * (seed + 1) * (n + 3) ** 2) % 256 for n in range(192)]
            content = encoded(Image.frombytes("RGB", (8, 8), bytes(palette)).resize((200, 150), 2), "JPEG")
        (folder / name / f"{file.strip('_')}.jpg").write_bytes(content)
        sentences = [{"raw": "x"}]
        images.append({"filename": f"{file.strip('_')}.jpg", "split": "train", "sentences": sentences})
    (folder / f"{name}.json").write_text(json.dumps({"images": images}))
    return KarpathySource(folder / f"{name}.json", folder / name)


def test_a_held_out_picture_is_trained_on(folder):
    held_out = source(folder, "held_out", beach=1, forest=2, _17=3)
    training = source(folder, "training", beach=4, copy=2, _17=5, other=6, broken=None)
    whole = held_out_pictures([held_out], names=True, hashes=True, distance=4)
    found = duplicates(training, whole)
    assert [(each.key, each.by, each.held_out, each.distance) for each in found.duplicates] == [
        ("beach.jpg", BY_NAME, "held_out:train/beach.jpg", None),
        ("copy.jpg", BY_HASH, "held_out:train/forest.jpg", 0),
    ]
    assert found.unreadable == 1
    listed = folder / "list.json"
    listed.write_text(exclude_json(found.duplicates))
    left = without_excluded(training, str(listed))
    assert [left.key(i) for i in range(len(left))] == ["17.jpg", "other.jpg", "broken.jpg"]
    hashes = folder / "hashes.json"
    hashes.write_text(whole.hashes_json())
    left = without_excluded(training, str(hashes))
    assert [left.key(i) for i in range(len(left))] == ["beach.jpg", "17.jpg", "other.jpg", "broken.jpg"]


def test_names_or_hashes_alone_find_both(folder):
    held_out = source(folder, "held_out", beach=1, forest=2)
    training = source(folder, "training", beach=4, copy=2)
    by_name = held_out_pictures([held_out], names=True, hashes=False, distance=4)
    assert [each.key for each in duplicates(training, by_name).duplicates] == ["beach.jpg"]
    by_hash = held_out_pictures([held_out], names=False, hashes=True, distance=4)
    assert [each.key for each in duplicates(training, by_hash).duplicates] == ["copy.jpg"]
