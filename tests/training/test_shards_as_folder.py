"""Pre-training from the shards that `fiber data shard` made is pre-training from the folder."""

import json

import pytest
from commands import command
from PIL import Image
from small_runs import RECIPE

from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Drawn pictures with captions, of which one cannot be read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    images = []
    for i in range(12):
        draw(scene(0, "train", i)).resize((96, 96), Image.Resampling.BILINEAR).save(tmp_path / f"images/{i}.jpg")
        sentences = [{"raw": f"picture {n} number {i}"} for n in range(1 + i % 3)]
        images.append({"filename": f"{i}.jpg", "split": "train", "sentences": sentences})
    (tmp_path / "images/7.jpg").write_bytes(b"no picture")
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path


def losses(capsys, folder, name, entry, captions) -> list[dict]:
    """What each step of a run logged, but for times, and the samples that were replaced."""
    overrides = [
        "optim.steps=6",
        "runtime.micro_batch=4",
        "runtime.global_batch=4",
        "log.every=1",
        "data.max_bad_rate=1",
    ]
    run = ["pretrain", "coarse", "--recipe", folder / "small.yaml", "--output", folder / name]
    code, _, err = command(capsys, *run, f"data.train=[{entry}]", f"data.captions={captions}", *overrides)
    assert code == 0, err
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    kept = []
    for line in lines:
        kept.append(
            {key: value for key, value in line.items() if "loss" in key or key in ("step", "mlm", "itm", "itc")}
        )
    return kept


@pytest.mark.parametrize("captions", ["random", "each"])
def test_losses_of_shards_are_others_than_of_their_folder(folder, capsys, captions):
    entry = f"{{kind: karpathy, json: {folder}/dataset.json, images: {folder}/images}}"
    shards = ["data", "shard", "--source", entry, "--out", folder / "shards", "--per-shard", "5", "--workers", "1"]
    code, out, err = command(capsys, *shards)
    assert code == 0, err
    assert "12 samples in 3 shards; 1 cannot be read" in out
    of_folder = losses(capsys, folder, f"folder-{captions}", entry, captions)
    of_shards = losses(
        capsys, folder, f"sharded-{captions}", f"{{kind: webdataset, shards: {folder}/shards}}", captions
    )
    assert len(of_folder) >= 6
    assert any("loss" in key for key in of_folder[0])
    assert of_shards == of_folder
