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


def test_a_doubled_id_shifts_captions_to_other_pictures(tmp_path):
    images = [{"id": number, "file_name": f"{i}.png"} for i, number in enumerate((40, 41, "40"))]
    with pytest.raises(UserError, match="the id 40 comes twice in images"):
        NocapsSource(*nocaps(tmp_path, images=images))


def test_a_picture_comes_twice(tmp_path):
    images = [{"id": number, "file_name": "0.png"} for number in (40, 41)]
    with pytest.raises(UserError, match=r"the file '0\.png' comes twice in images"):
        NocapsSource(*nocaps(tmp_path, images=images, annotations=[]))


def test_ids_as_text_are_other_ids(tmp_path):
    captions = [{"image_id": str(40 + i), "caption": f"caption {i}"} for i in range(3)]
    source = NocapsSource(*nocaps(tmp_path, annotations=captions))
    assert [source.captions(i) for i in range(3)] == [("caption 0",), ("caption 1",), ("caption 2",)]


@pytest.mark.parametrize("bad", [{"image_id": 99, "caption": "x"}, {"image_id": 40, "caption": 3}, {"caption": "x"}, 3])
def test_one_bad_caption_refuses_the_file(tmp_path, bad, capsys):
    captions = [{"image_id": 40 + i % 3, "caption": f"caption {i}"} for i in range(6)]
    source = NocapsSource(*nocaps(tmp_path, annotations=[*captions, bad]))
    assert source.captions(0) == ("caption 0", "caption 3")
    assert [place for place, _ in source.left_out] == ["annotations[6]"]
    assert "1 of 7 annotations is left out: annotations[6]" in capsys.readouterr().err


def test_one_bad_image_refuses_the_file_or_its_captions_go_elsewhere(tmp_path):
    images = [{"id": 40, "file_name": "0.png"}, {"id": 41}, {"id": 42, "file_name": "2.png", "domain": None}]
    source = NocapsSource(*nocaps(tmp_path, images=images))
    assert [source.image_id(i) for i in range(2)] == [40, 42]
    assert source.captions(1) == ("a house at sea",)
    assert [place for place, _ in source.left_out] == ["images[1]"]


def many(tmp_path, count, **change):
    """A file of images, of which the second is changed, with three captions each and twenty of the second."""
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(count)]
    images[1] |= change
    captions = [{"image_id": i, "caption": f"{i}"} for i in range(count) for _ in range(20 if i == 1 else 3)]
    return NocapsSource(*nocaps(tmp_path, images=images, annotations=captions))


@pytest.mark.parametrize("count", [3, 30, 90])
@pytest.mark.parametrize("written", [None, 3.5])
def test_an_image_without_its_id_refuses_the_file(tmp_path, count, written):
    source = many(tmp_path, count, id=written)
    assert [source.image_id(i) for i in range(len(source))] == [0, *range(2, count)]
    assert all(source.captions(i) == (str(source.image_id(i)),) * 3 for i in range(len(source)))
    assert source.left_out[1:] == [("annotations[3]", "there is no image 1, named by 20 of the annotations")]


@pytest.mark.parametrize("other", [0, 2])
def test_captions_of_a_bad_image_go_to_a_later_one_of_its_id(tmp_path, other):
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(20)]
    del images[other]["file_name"]
    images.append({"id": other, "file_name": "20.png"})
    with pytest.raises(UserError, match=f"the id {other} comes twice in images"):
        NocapsSource(*nocaps(tmp_path, images=images))
