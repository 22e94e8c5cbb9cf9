"""What all evaluation sets of boxes share: reading, and the order of the images."""

import json

from region_files import coco_file, write_image

from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.tasks.regions.detection_set import DetectionSet


def test_a_picture_that_cannot_be_read_is_left_out(tokenizer, tmp_path):
    source = CocoSource(coco_file(tmp_path, []), tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")
    batches = list(DetectionSet(source, tokenizer, 64).loader(rank=0, world=1, batch_size=1, workers=0))
    assert [batch["index"].tolist() for batch in batches] == [[], [1]]
    assert batches[0]["bad"][0][0] == "instances/a.png"
    assert "pixels" not in batches[0]


def test_pictures_that_pad_to_one_size_share_batches(tokenizer, tmp_path):
    """Whatever their order in the file; every rank gets of each size, and together they look at each once."""
    shapes = [(40, 30), (30, 40), (40, 31), (30, 40), (40, 30), (31, 40), (40, 30), (30, 40)]
    for number, shape in enumerate(shapes):
        write_image(tmp_path / f"{number}.png", *shape)
    images = [{"id": n, "file_name": f"{n}.png", "width": w, "height": h} for n, (w, h) in enumerate(shapes)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    evalset = DetectionSet(CocoSource(tmp_path / "instances.json", tmp_path), tokenizer, 64, short=32)
    seen = []
    for rank in (0, 1):
        batches = list(evalset.loader(rank=rank, world=2, batch_size=2, workers=0))
        assert {tuple(batch["pixels"].shape) for batch in batches} == {(2, 3, 32, 64), (2, 3, 64, 32)}
        seen += [index for batch in batches for index in batch["index"].tolist()]
    assert sorted(seen) == list(range(8))
