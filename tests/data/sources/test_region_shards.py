"""WebDataset shards whose JSON members are ODVG records."""

import io
import json
import tarfile

import pytest
from odvg_records import DETECTION, GROUNDING, check_odvg
from region_files import write_image

from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.region_shards import RegionShardsSource


def test_records_of_shards_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_image(tmp_path / "a.png")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number, record in enumerate((GROUNDING, DETECTION, {"caption": "nothing"})):
            parts = {"png": (tmp_path / "a.png").read_bytes(), "json": json.dumps(record).encode()}
            for ending, content in parts.items():
                entry = tarfile.TarInfo(f"{number}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    (tmp_path / "labels.json").write_text(json.dumps({"2": "person", "12": "cat"}))
    source = RegionShardsSource(str(tmp_path / "0.tar"), tmp_path / "labels.json")
    check_odvg(source.regions(0), source.regions(1))
    assert source.image(0).size == (40, 30)
    with pytest.raises(BadSample, match="ODVG"):
        source.regions(2)
    (tmp_path / "labels.json").write_text(json.dumps({"2": "cat", "12": "person"}))
    swapped = RegionShardsSource(str(tmp_path / "0.tar"), tmp_path / "labels.json")
    with pytest.raises(BadSample, match=r"label 12 is 'person' in .*labels.json, but the record's category is 'cat'"):
        swapped.regions(1)
