"""ODVG's JSONL, detection and grounding records."""

import json

import pytest
from odvg_records import DETECTION, GROUNDING, check_odvg
from region_files import write_image

from fiber_cli.data.sources.odvg import OdvgSource
from fiber_cli.errors import UserError


def test_both_kinds_of_records_are_read(tmp_path):
    write_image(tmp_path / "a.png")
    other = {**DETECTION, "detection": {"instances": [{"bbox": [0, 0, 9, 9], "label": 2, "category": "person"}]}}
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, (GROUNDING, DETECTION, other))) + "\n\n")
    source = OdvgSource(path, tmp_path)
    assert source.names == ["person", "cat"]
    assert len(source) == 3
    check_odvg(source.regions(0), source.regions(1))
    (tmp_path / "labels.json").write_text(json.dumps({"12": "kitten", "2": "human"}))
    assert OdvgSource(path, tmp_path, tmp_path / "labels.json").names == ["human", "kitten"]
    path.write_text(json.dumps(GROUNDING) + "\n" + json.dumps({"filename": "a.png"}))
    with pytest.raises(UserError, match="line 2"):
        OdvgSource(path, tmp_path)
