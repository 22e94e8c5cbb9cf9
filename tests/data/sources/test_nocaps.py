"""NoCaps files: captions, ids and domains are read, and wrong files told."""

import json

import pytest
from PIL import Image

from fiber_cli.data.sources.nocaps import NocapsSource
from fiber_cli.errors import UserError

DOMAINS = ["in-domain", "out-domain", "in-domain"]


def nocaps(folder, annotated=True, **change):
    """The file and its folder of three images; change: other entries of the file."""
    (folder / "images").mkdir()
    images = [{"id": 40 + i, "file_name": f"{i}.png", "domain": domain} for i, domain in enumerate(DOMAINS)]
    for image in images:
        Image.new("RGB", (20, 30), (60 * image["id"] % 255, 9, 9)).save(folder / "images" / image["file_name"])
    content = {"images": images}
    if annotated:
        texts = [(40, "a red dog"), (41, "two big cats"), (42, "a house at sea"), (40, "one dog")]
        content["annotations"] = [
            {"image_id": image, "caption": text, "id": i} for i, (image, text) in enumerate(texts)
        ]
    (folder / "nocaps.json").write_text(json.dumps(content | change))
    return folder / "nocaps.json", folder / "images"


def test_captions_ids_and_domains_are_read(tmp_path):
    source = NocapsSource(*nocaps(tmp_path))
    captions = [("a red dog", "one dog"), ("two big cats",), ("a house at sea",)]
    assert [source.captions(i) for i in range(3)] == captions
    assert [source.image_id(i) for i in range(3)] == [40, 41, 42]
    assert [source.domain(i) for i in range(3)] == DOMAINS
    assert source.image(1).size == (20, 30)


def test_images_without_annotations_have_no_captions(tmp_path):
    source = NocapsSource(*nocaps(tmp_path, annotated=False))
    assert [source.captions(i) for i in range(3)] == [(), (), ()]


@pytest.mark.parametrize(
    "change", [{"images": [{"id": 1}]}, {"images": []}, {"annotations": [{"image_id": 7, "caption": "x"}]}]
)
def test_bad_nocaps(tmp_path, change):
    with pytest.raises(UserError, match=r"nocaps\.json"):
        NocapsSource(*nocaps(tmp_path, **change))
