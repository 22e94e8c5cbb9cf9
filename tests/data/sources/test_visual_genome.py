"""Visual Genome: region descriptions as captions, and COCO's held-out images left out."""

import json

import pytest
from image_files import jpeg

from fiber_cli.data.sources import open_source
from fiber_cli.data.sources.visual_genome import VisualGenomeSettings, VisualGenomeSource
from fiber_cli.errors import UserError


@pytest.fixture
def genome(tmp_path, karpathy_coco):
    """Images 1 to 4, of which 1, 3 and 4 are COCO's."""
    regions = []
    for i in range(1, 5):
        phrases = [{"region_id": 10 * i + r, "phrase": f" thing {r} of {i} "} for r in range(i)]
        regions.append({"id": i, "regions": phrases})
    (tmp_path / "region_descriptions.json").write_text(json.dumps(regions))
    data = [{"image_id": i, "coco_id": {1: 102, 2: None, 3: 101, 4: 103}[i]} for i in range(1, 5)]
    (tmp_path / "image_data.json").write_text(json.dumps(data))
    for folder, ids in (("VG_100K", (1, 2)), ("VG_100K_2", (3, 4))):
        (tmp_path / "vg" / folder).mkdir(parents=True)
        for i in ids:
            (tmp_path / "vg" / folder / f"{i}.jpg").write_bytes(jpeg(size=(10 * i, 20)))
    return tmp_path


def entry(folder, **settings):
    """The source of an entry of a recipe."""
    paths = {"regions": folder / "region_descriptions.json", "images": folder / "vg"}
    given = {name: str(path) for name, path in (paths | settings).items()}
    return open_source(VisualGenomeSettings(kind="visual_genome", **given))


def test_phrases_are_captions_and_images_lie_in_two_folders(genome):
    source = VisualGenomeSource(genome / "region_descriptions.json", genome / "vg")
    assert len(source) == 4
    assert source.excluded == 0
    assert [source.image(i).width for i in range(4)] == [10, 20, 30, 40]
    assert source.captions(2) == ("thing 0 of 3", "thing 1 of 3", "thing 2 of 3")


def test_images_that_coco_holds_out_are_left_out(genome):
    """COCO's 102 (val) and 103 (test) go; 101 (restval) and the image that is not of COCO stay."""
    source = entry(genome, image_data=genome / "image_data.json", exclude=genome / "dataset_coco.json")
    assert [source.key(i) for i in range(2)] == ["VG_100K/2.jpg", "VG_100K_2/3.jpg"]
    assert len(source) == 2
    assert source.excluded == 2


def test_what_is_wrong_is_told(genome):
    regions, images = genome / "region_descriptions.json", genome / "vg"
    data, karpathy = genome / "image_data.json", genome / "dataset_coco.json"
    with pytest.raises(UserError, match="knows none of its own by COCO's ids; give it image_data"):
        entry(genome, exclude=karpathy)
    with pytest.raises(UserError, match="not Visual Genome's region descriptions"):
        VisualGenomeSource(data, images)
    bad = genome / "bad.json"
    bad.write_text('[{"coco_id": 102}]')
    with pytest.raises(UserError, match=r"not Visual Genome's image_data.json.*image_id"):
        VisualGenomeSource(regions, images, bad)
    with pytest.raises(UserError, match="none of 4 images looked for"):
        VisualGenomeSource(regions, genome / "images")
    data.write_text("[]")
    with pytest.raises(UserError, match="knows none of its own by COCO's ids"):
        entry(genome, image_data=data, exclude=karpathy)
    regions.write_text("[]")
    with pytest.raises(UserError, match="lists no image"):
        VisualGenomeSource(regions, images)


def changed(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_an_image_comes_twice(genome):
    regions = genome / "region_descriptions.json"
    changed(regions, lambda content: content[1].update(id="1"))
    with pytest.raises(UserError, match="the id 1 comes twice"):
        VisualGenomeSource(regions, genome / "vg")


@pytest.mark.parametrize("bad", [{"regions": [{"phrase": 3}]}, {"regions": None}, {"regions": [{}]}, {"id": None}])
def test_one_bad_record_refuses_the_file(genome, bad, capsys):
    regions = genome / "region_descriptions.json"
    changed(regions, lambda content: content[1].update(bad))
    source = VisualGenomeSource(regions, genome / "vg")
    assert [source.key(i) for i in range(len(source))] == ["VG_100K/1.jpg", "VG_100K_2/3.jpg", "VG_100K_2/4.jpg"]
    assert [place for place, _ in source.left_out] == ["images[1]"]
    assert source.excluded == 0
    assert "1 of 4 images is left out: images[1]" in capsys.readouterr().err


def test_what_is_held_out_is_lost_with_a_bad_record(genome):
    changed(genome / "dataset_coco.json", lambda content: content["images"][2].pop("sentences"))
    with pytest.raises(UserError, match=r"dataset_coco.json: not a Karpathy JSON, see images\[2\]"):
        entry(genome, image_data=genome / "image_data.json", exclude=genome / "dataset_coco.json")
