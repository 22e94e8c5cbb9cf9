"""`fiber data`: what is said, fetched, checked, packed and left out, as a user types it."""

import io
import json
import zipfile
from collections import Counter

import pytest
from commands import command
from files_server import serving
from image_files import encoded, jpeg
from PIL import Image

from fiber_cli import downloads
from fiber_cli.config import resolve
from fiber_cli.config.resolve import parse_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "WAITS_SECONDS", ())


def karpathy(folder, name, split_of, *, copies=()):
    """A data set of Karpathy's form below a folder; pictures of `copies` are those of another one, smaller."""
    images = []
    pictures = folder / name / "flickr30k-images"
    pictures.mkdir(parents=True)
    for file, split in split_of.items():
        seed = int(file) % 997
        drawn = Image.effect_noise((8, 8), 90 + seed % 50).resize((160, 120), Image.Resampling.BICUBIC)
        (pictures / f"{file}.jpg").write_bytes(encoded(drawn.convert("RGB"), "JPEG"))
        images.append({"filename": f"{file}.jpg", "split": split, "sentences": [{"raw": f"text {file}"}]})
    for copy, original in copies:
        with Image.open(original) as opened:
            (pictures / f"{copy}.jpg").write_bytes(encoded(opened.resize((100, 75)), "JPEG", quality=70))
        images.append({"filename": f"{copy}.jpg", "split": "train", "sentences": [{"raw": f"text {copy}"}]})
    (folder / name / f"dataset_{name}.json").write_text(json.dumps({"images": images}))
    return pictures


def test_get_keeps_silent_about_a_data_set(capsys):
    code, out, _ = command(capsys, "data", "get")
    assert code == 0
    for words in ("Objects365", "licence: CC BY 4.0", "checksum unknown", "by hand: register at", "for 4m, 4m_clean"):
        assert words in out
    assert "nothing is fetched without --root" in out
    code, out, _ = command(capsys, "data", "get", "refcoco", "--json")
    assert [each["name"] for each in json.loads(out)] == ["coco", "mdetr"]
    code, _, err = command(capsys, "data", "get", "tiny")
    assert code == 1
    assert "needs no data but its own scenes" in err
    code, _, err = command(capsys, "data", "get", "coco", "--root", "x", "--mirror", "file:///etc")
    assert (code, "http://" in err) == (1, True)


@pytest.mark.parametrize("names", [[], ["4m"], ["coco", "refcoco"]])
def test_get_reads_a_recipe_for_every_data_set_anew(names, capsys, monkeypatch):
    read: Counter[str] = Counter()

    def counted(text, where, *rest, **named):
        read[where] += 1
        return parse_recipe(text, where, *rest, **named)

    monkeypatch.setattr(resolve, "parse_recipe", counted)
    assert command(capsys, "data", "get", *names)[0] == 0
    assert all(count == 1 for count in read.values()), read


def test_get_leaves_what_may_be_fetched(tmp_path, capsys):
    """Two files of which one is an archive, one that the server does not have, and one that a person must ask for."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("Annotations/1.xml", "<a/>")
        opened.writestr("Sentences/1.txt", "a")
    served = {"annotations.zip": archive.getvalue(), "train.txt": b"1\n", "val.txt": b"2\n"}
    with serving(served) as server:
        get = ["data", "get", "flickr30k_entities", "--root", tmp_path, "--mirror", server.folder]
        code, out, err = command(capsys, *get)
        assert code == 1
        assert "not fetched (1 of 5):" in err
        assert "test.txt: the server answers HTTP 404" in err
        assert "to do: flickr30k_entities/flickr30k-images: the pictures of flickr30k" in err
        assert (tmp_path / "flickr30k_entities" / "Annotations" / "1.xml").read_text() == "<a/>"
        server.files["test.txt"] = b"3\n"
        code, out, _ = command(capsys, *get)
        assert code == 0
        assert "train.txt: 2 bytes, verified by the digest that was kept" in out
        # The archive may go once it is unpacked.
        (tmp_path / "flickr30k_entities" / "annotations.zip").unlink()
        del server.files["annotations.zip"]
        assert command(capsys, *get)[0] == 0


def test_check_finds_nothing_wrong(tmp_path, capsys):
    pictures = karpathy(tmp_path, "flickr30k", {"1000000001": "train", "1000000002": "val", "1000000003": "test"})
    code, out, _ = command(capsys, "data", "check", "flickr30k", "--root", tmp_path, "--any-count")
    assert code == 0, out
    assert "1 samples (published: 29,000); decoded 160 x 120" in out
    code, out, err = command(capsys, "data", "check", "flickr30k", "--root", tmp_path, "--json")
    assert code == 1
    assert "3 of 5 checks found something missing or different" in err
    assert [row["status"] for row in json.loads(out)] == ["ok", "ok", "differs", "differs", "differs"]
    (pictures / "1000000002.jpg").write_bytes(jpeg()[:100])
    (tmp_path / "flickr30k" / "dataset_flickr8k.json").write_text("{}")
    code, out, _ = command(capsys, "data", "check", "flickr30k", "flickr8k", "--root", tmp_path, "--any-count")
    assert code == 1
    assert "sample 1000000002.jpg: not a readable image" in out
    assert "missing  flickr8k/images: fiber data get flickr8k" in out


def test_dedup_trains_on_what_is_tested(tmp_path, capsys):
    """By its name in another split, and by its hash as a smaller copy; what is new is kept."""
    ids = {"1000000001": "train", "1000000002": "val", "1000000003": "test", "1000000004": "train"}
    held_out = karpathy(tmp_path, "flickr30k", ids)
    copies = [("77", held_out / "1000000003.jpg")]
    pictures = karpathy(tmp_path, "flickr8k", {"1000000002": "train", "55": "train"}, copies=copies)
    entry = f"{{kind: karpathy, json: flickr8k/dataset_flickr8k.json, images: {pictures}}}"
    out = tmp_path / "clean"
    settings = [f"data.root={tmp_path}", f"data.train=[{entry}]", "data.val=[]"]
    settings += ["log.validate_every=null", "log.keep_best=null", "runtime.micro_batch=1", "runtime.global_batch=1"]
    dedup = ["data", "dedup", "--recipe", "flickr8k", *settings, "--against"]
    code, said, err = command(capsys, *dedup, "flickr30k", "--out", out)
    assert code == 0, err
    assert "2 of 3 samples are held out, 1 by name, 1 by image hash" in said
    report = json.loads((out / "report.json").read_text())
    removed = {each["key"]: each for each in report["sources"][0]["duplicates"]}
    assert removed.keys() == {"1000000002.jpg", "77.jpg"}
    assert removed["77.jpg"]["held_out"] == "dataset_flickr30k:test/1000000003.jpg"
    assert removed["77.jpg"]["distance"] <= 4
    code, said, err = command(capsys, "pretrain", "coarse", "--recipe", out / "recipe.yaml", "--dry-run")
    assert "exclude leaves out 2 of 3 samples" in err
    code, said, _ = command(capsys, *dedup, "flickr30k", "--out", tmp_path / "names", "--by", "name")
    assert "1 of 3 samples are held out, 1 by name, 0 by image hash" in said
    code, _, err = command(capsys, *dedup, "lvis", "--out", tmp_path / "x")
    assert code == 1
    assert "lvis_v1_minival" in err


def test_shard_takes_an_entry_of_a_recipe(tmp_path, capsys):
    karpathy(tmp_path, "flickr30k", {"1000000001": "train", "1000000002": "val", "1000000003": "test"})
    shard = ["data", "shard", "--recipe", "flickr30k_itc", f"data.root={tmp_path}", "--out", tmp_path / "s"]
    code, out, err = command(capsys, *shard, "--workers", "1")
    assert code == 0, err
    assert "1 samples in 1 shards" in out
    assert f"entry of a recipe: {{kind: webdataset, shards: {tmp_path / 's'}}}" in out
    code, _, err = command(capsys, *shard, "--entry", "3")
    assert "flickr30k_itc has 1 entries of data.train" in err
    code, _, err = command(capsys, "data", "shard", "--source", "{kind: karpaty}", "--out", tmp_path / "t")
    assert "did you mean 'karpathy'" in err
    assert command(capsys, "data", "shard", "--out", tmp_path / "t")[0] == 2
