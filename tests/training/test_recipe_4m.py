"""The paper's recipe on a stub of each of its sources: every file that it names is found, read and trained on."""

import json

import pytest
from image_files import jpeg
from tar_files import shard_sample, write_tar

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.errors import UserError
from fiber_cli.training.plan import dry_run

OVERRIDES = [
    "model.swin=null",
    "model.roberta=null",
    "model.tokenizer=builtin",
    "model.image_size=96",
    "data.workers=0",
    "runtime.micro_batch=2",
    "runtime.global_batch=2",
]
#: Folder and split of COCO's images, in the order of their numbers.
COCO = [("train2014", "train"), ("train2014", "train"), ("val2014", "restval"), ("val2014", "val")]


def write(path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def picture(number: int) -> bytes:
    return jpeg((40 * number % 256, 80, 160), size=(80, 60))


@pytest.fixture
def root(tmp_path):
    write_coco(tmp_path / "coco")
    for name in ("cc3m", "sbu"):
        members = [member for key in range(3) for member in shard_sample(f"{key:09d}", "a caption")]
        write_tar(tmp_path / name / "00000.tar", members)
    write_visual_genome(tmp_path / "vg")
    return tmp_path


def write_coco(folder) -> None:
    images = []
    for number, (year, split) in enumerate(COCO):
        sentences = [{"raw": f"caption {number} {k}"} for k in range(5)]
        entry = {"filepath": year, "filename": f"{number}.jpg", "split": split, "imgid": number, "cocoid": number}
        images.append(entry | {"sentences": sentences})
        write(folder / "images" / year / f"{number}.jpg", picture(number))
    write(folder / "dataset_coco.json", json.dumps({"images": images}).encode())


def write_visual_genome(folder) -> None:
    images = []
    for number in (7, 8):
        phrases = [{"phrase": f"phrase {k}", "image_id": number} for k in range(2)]
        images.append({"id": number, "regions": phrases})
        write(folder / "VG_100K" / f"{number}.jpg", picture(number))
    write(folder / "region_descriptions.json", json.dumps(images).encode())
    # Image 8 is COCO's validation image 3, so it must not be trained on.
    data = [{"image_id": 7, "coco_id": None}, {"image_id": 8, "coco_id": 3}]
    write(folder / "image_data.json", json.dumps(data).encode())


@pytest.mark.slow
def test_every_source_is_read_and_trained_on(root, capsys):
    dry_run(resolve_recipe("4m", [f"data.root={root}", *OVERRIDES]))
    printed = capsys.readouterr().out
    # 3 COCO images of 5 captions, 3 + 3 shard samples, 1 Visual Genome image of 2 phrases: 23 pairs, 11 steps an epoch
    assert f"steps: 100,000 of 2 samples, {100000 / 11:.2f} epochs" in printed
    assert "fusion (image side) 12,607,494" in printed
    for loss in ("mlm_loss", "itc_loss", "itm_loss"):
        assert loss in printed


@pytest.mark.parametrize(
    "missing", ["coco/dataset_coco.json", "cc3m/00000.tar", "vg/region_descriptions.json", "vg/image_data.json"]
)
def test_a_missing_source_is_named(root, missing):
    (root / missing).unlink()
    with pytest.raises(UserError, match=missing.split("/")[0]):
        dry_run(resolve_recipe("4m", [f"data.root={root}", *OVERRIDES]))
