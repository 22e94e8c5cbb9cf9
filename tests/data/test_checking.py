"""Data sets checked: layout, numbers, samples."""

import json

from image_files import jpeg

from fiber_cli.data.catalogue import Check, DataFile, DataSet, Layout
from fiber_cli.data.checking import check_data_set, entry_settings


def data_set(count):
    entry = {"kind": "karpathy", "json": "own/d.json", "images": "own/p", "split": "train"}
    files = (DataFile(makes=("own/d.json", "own/p"), by="ask for it"),)
    return DataSet("own", "Own", "https://own", "unknown", files, (Check(entry, count),))


def test_what_is_missing_or_different_is_ok(tmp_path):
    found = [(each.what, each.status, each.detail) for each in check_data_set(data_set(2), tmp_path)]
    assert [status for _, status, _ in found] == ["missing", "missing", "missing"]
    assert found[0][2] == "ask for it"
    (tmp_path / "own" / "p").mkdir(parents=True)
    images = [{"filename": f"{i}.jpg", "split": "train", "sentences": [{"raw": "x"}]} for i in range(3)]
    (tmp_path / "own" / "d.json").write_text(json.dumps({"images": images}))
    for i in range(3):
        (tmp_path / "own" / "p" / f"{i}.jpg").write_bytes(jpeg())
    *layout, opened = check_data_set(data_set(3), tmp_path)
    assert [each.status for each in layout] == ["ok", "ok"]
    assert (opened.status, opened.detail) == ("ok", "3 samples (published: 3); decoded 40 x 30, 40 x 30, 40 x 30")
    assert list(check_data_set(data_set(4), tmp_path))[-1].status == "differs"
    assert list(check_data_set(data_set(4), tmp_path, any_count=True))[-1].status == "ok"
    assert "published: unknown" in list(check_data_set(data_set(None), tmp_path))[-1].detail
    (tmp_path / "own" / "p" / "1.jpg").write_bytes(b"x")
    last = list(check_data_set(data_set(3), tmp_path))[-1]
    assert last.status == "differs"
    assert "sample 1.jpg: not a readable image" in last.detail
    (tmp_path / "own" / "d.json").write_text("{}")
    assert "not a Karpathy JSON" in list(check_data_set(data_set(3), tmp_path))[-1].detail


def test_folders_by_source_lie_elsewhere(tmp_path):
    settings = entry_settings(
        {"kind": "mdetr", "json": "m/x.json", "images": {"coco": "c", "vg": "v"}}, Layout(tmp_path)
    )
    assert settings.json == str(tmp_path / "m/x.json")
    assert settings.images == {"coco": str(tmp_path / "c"), "vg": str(tmp_path / "v")}


def test_the_own_folder_of_a_data_set_is_no_root(tmp_path):
    """Beside which the folders of others lie, whatever its name is here."""
    entry = {"kind": "karpathy", "json": "own/d.json", "images": "other/p", "split": "train"}
    files = (DataFile(("own/d.json",), by="ask"), DataFile(("other/p",), of="other", by="ask the other"))
    described = DataSet("own", "Own", "https://own", "unknown", files, (Check(entry, 1),))
    folder = tmp_path / "my own"
    folder.mkdir()
    assert [each.status for each in check_data_set(described, folder)] == ["missing"] * 3
    images = [{"filename": "1.jpg", "split": "train", "sentences": [{"raw": "x"}]}]
    (folder / "d.json").write_text(json.dumps({"images": images}))
    assert [each.status for each in check_data_set(described, folder)] == ["ok", "missing", "missing"]
    pictures = tmp_path / "other" / "p"
    pictures.mkdir(parents=True)
    (pictures / "1.jpg").write_bytes(jpeg())
    assert [each.status for each in check_data_set(described, folder)] == ["ok"] * 3
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "d.json").write_text(json.dumps({"images": images}))
    assert [each.status for each in check_data_set(described, tmp_path)] == ["ok"] * 3


def test_what_has_served_is_wanted(tmp_path):
    files = (DataFile(("list.json",), url="https://own/l", save="list.json", serves="own"), DataFile(("own",), by="x"))
    described = DataSet("own", "Own", "https://own", "unknown", files, ())
    assert [each.status for each in check_data_set(described, tmp_path)] == ["missing", "missing"]
    (tmp_path / "own").mkdir()
    assert [each.status for each in check_data_set(described, tmp_path)] == ["ok", "ok"]
