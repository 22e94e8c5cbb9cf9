"""Records of ODVG, and what is no such record."""

import json

import pytest
from odvg_records import DETECTION, GROUNDING, check_odvg
from shard_server import serving_shards

from fiber_cli.data import remote_files
from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.odvg_record import odvg_regions, read_label_map
from fiber_cli.errors import UserError


def test_both_kinds_of_record_are_read():
    check_odvg(odvg_regions(GROUNDING, {}), odvg_regions(DETECTION, {"12": 1}))


def test_a_box_without_phrases_has_no_spans():
    record = {"grounding": {"caption": "a cat", "regions": [{"bbox": [1, 2, 3, 4]}]}}
    regions = odvg_regions(record, {})
    assert regions.spans == [[]]
    assert regions.size is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "NoneType"),
        ({"caption": "nothing"}, "KeyError: 'detection'"),
        ({"detection": {"instances": [{"bbox": [1, 2, 3], "label": 12}]}}, "ValueError"),
        ({"detection": {"instances": [{"bbox": "1234", "label": 12}]}}, "bbox must be a list"),
        ({"detection": {"instances": [{"bbox": [1, 2, 10**400, 4], "label": 12}]}}, "bbox is not finite"),
        ({"grounding": {"caption": "a cat", "regions": [{"bbox": "1234", "phrase": "cat"}]}}, "bbox must be a list"),
        ({"grounding": {"caption": "a cat", "regions": [{"bbox": [1, 2, 3, 4], "phrase": "a dog"}]}}, "is not in"),
        ({"grounding": {"caption": None, "regions": [{"bbox": [1, 2, 3, 4], "phrase": "a dog"}]}}, "TypeError"),
    ],
)
def test_anything_else_is_a_bad_sample(record, reason):
    with pytest.raises(BadSample, match=f"not an ODVG record .*{reason}"):
        odvg_regions(record, {"12": 0})


def test_a_label_without_name_is_called_a_fault_of_the_record():
    with pytest.raises(BadSample, match=r"^label 3 has no name; .*: label_map of a recipe, and label_map\.json beside"):
        odvg_regions({"detection": {"instances": [{"bbox": [1, 2, 3, 4], "label": 3}]}}, {"12": 0})


@pytest.mark.parametrize(("status", "said"), [(404, "is not there"), (403, r"cannot be read \(.*403")])
def test_a_label_map_that_a_server_does_not_send_is_a_traceback(tmp_path, monkeypatch, status, said):
    with serving_shards(tmp_path) as server:
        server.missing = status
        monkeypatch.setattr(remote_files, "WAITS_SECONDS", (60.0,))  # what is forbidden is not asked for again
        with pytest.raises(UserError, match=rf"label_map\.json: {said}.*; give the path or the address of a label map"):
            read_label_map(f"{server.address}/label_map.json")


def test_label_maps_are_ordered_by_label(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"12": "cat", "2": "person"}))
    assert list(read_label_map(path).names.items()) == [("2", "person"), ("12", "cat")]
    assert read_label_map(None).names == {}
    for wrong in (["cat"], {"cat": "12"}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"not a label map \(.*\); wanted is"):
            read_label_map(path)
