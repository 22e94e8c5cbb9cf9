"""The splits that are held out, and where they are found."""

import json

import pytest
from image_files import jpeg

from fiber_cli.data.sources import source_format
from fiber_cli.errors import UserError
from fiber_cli.evaluation.held_out import HELD_OUT, held_out_entries
from fiber_cli.evaluation.known import KNOWN


def test_a_held_out_set_is_none_of_fiber_eval():
    for name, (kind, splits) in HELD_OUT.items():
        assert kind in KNOWN[name].kinds
        assert source_format(kind).kind == kind
        assert "train" not in splits


def test_a_set_that_is_not_there_is_passed_over_in_silence(tmp_path):
    pictures = tmp_path / "flickr30k" / "flickr30k-images"
    pictures.mkdir(parents=True)
    (pictures / "1.jpg").write_bytes(jpeg())
    (tmp_path / "flickr30k" / "dataset_flickr30k.json").write_text(json.dumps({"images": []}))
    entries, missing = held_out_entries((), tmp_path)
    assert [(entry.name, entry.split) for entry in entries] == [("flickr30k", "val"), ("flickr30k", "test")]
    assert any(line.startswith("coco val: ") for line in missing)
    with pytest.raises(UserError, match="lvis_v1_minival"):
        held_out_entries(("lvis",), tmp_path)
    with pytest.raises(UserError, match="--against flickr: give some of coco, flickr30k"):
        held_out_entries(("flickr",), tmp_path)
