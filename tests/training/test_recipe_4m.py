"""The paper's recipe on a stub of each of its sources: every file that it names is found, read and trained on."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fiber_cli.training import plan
from fiber_cli.errors import UserError
from fiber_cli.config.resolve import resolve_recipe


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def write(path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def root(tmp_path):
    images = [
        {"filepath": f"{s}2014", "filename": f"{i}.jpg", "split": split, "imgid": i, "cocoid": i,
         "sentences": [{"raw": f"caption {i} {k}"} for k in range(5)]}
        for i, (s, split) in enumerate([("train", "train"), ("train", "train"), ("val", "restval"), ("val", "val")])
    ]  # fmt: skip
    for entry in images:
        write(tmp_path / "coco" / "images" / entry["filepath"] / entry["filename"], jpeg(entry["imgid"]))
    write(tmp_path / "coco" / "dataset_coco.json", json.dumps({"images": images}).encode())
    for name in ("cc3m", "sbu"):
        (tmp_path / name).mkdir()
        with tarfile.open(tmp_path / name / "00000.tar", "w") as tar:
            for key in range(3):
                for ending, content in (("jpg", jpeg(key)), ("txt", b"a caption"), ("json", b"{}")):
                    member = tarfile.TarInfo(f"{key:09d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    regions = [{"id": i, "regions": [{"phrase": f"phrase {k}", "image_id": i} for k in range(2)]} for i in (7, 8)]
    write(tmp_path / "vg" / "region_descriptions.json", json.dumps(regions).encode())
    # Image 8 is COCO's validation image 3, so it must not be trained on.
    data = [{"image_id": 7, "coco_id": None}, {"image_id": 8, "coco_id": 3}]
    write(tmp_path / "vg" / "image_data.json", json.dumps(data).encode())
    for i in (7, 8):
        write(tmp_path / "vg" / "VG_100K" / f"{i}.jpg", jpeg(i))
    return tmp_path


OVERRIDES = [
    "model.swin=null", "model.roberta=null", "model.tokenizer=builtin", "model.image_size=96", "data.workers=0",
    "runtime.micro_batch=2", "runtime.global_batch=2",
]  # fmt: skip


@pytest.mark.slow
def test_dry_run_on_stubs(root, capsys):
    plan.dry_run(resolve_recipe("4m", [f"data.root={root}", *OVERRIDES]))
    shown = capsys.readouterr().out
    # 3 COCO images of 5 captions, 3 + 3 shard samples, 1 Visual Genome image of 2 phrases: 23 pairs, 11 steps an epoch
    assert f"steps: 100,000 of 2 samples, {100000 / 11:.2f} epochs" in shown
    assert "fusion (image side) 12,607,494" in shown
    assert "mlm_loss" in shown and "itc_loss" in shown and "itm_loss" in shown


@pytest.mark.parametrize(
    "missing", ["coco/dataset_coco.json", "cc3m/00000.tar", "vg/region_descriptions.json", "vg/image_data.json"]
)
def test_a_missing_source_is_named(root, missing):
    (root / missing).unlink()
    with pytest.raises(UserError, match=missing.split("/")[0]):
        plan.dry_run(resolve_recipe("4m", [f"data.root={root}", *OVERRIDES]))
