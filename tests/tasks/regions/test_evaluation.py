"""Which set a source is evaluated by."""

import json

import pytest
from region_files import write_image

from fiber_cli.data.sources.mdetr import MdetrSource
from fiber_cli.data.sources.scenes import SceneGrounding, SceneReferring
from fiber_cli.errors import UserError
from fiber_cli.tasks.regions.evaluation import region_sets
from fiber_cli.tasks.regions.phrase_set import PhraseSet
from fiber_cli.tasks.regions.referring_set import ReferringSet


def test_sets_follow_what_a_source_holds(tokenizer, tmp_path):
    """Expressions are told from captions by the source where it says so, by the task where it does not."""
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30, "caption": "cat"}],
        "annotations": [{"image_id": 1, "bbox": [1, 1, 9, 9], "tokens_positive": [[0, 3]]}],
    }
    write_image(tmp_path / "a.png")
    (tmp_path / "x.json").write_text(json.dumps(content))
    captions, says = (MdetrSource(tmp_path / "x.json", tmp_path, refers=refers) for refers in (None, True))
    for referring, kind in ((False, PhraseSet), (True, ReferringSet)):
        sources = [captions, says, SceneGrounding("val", 2), SceneReferring("val", 2)]
        sets = region_sets(sources, tokenizer, 64, short=32, longest=64, referring=referring)
        assert [type(each) for each in sets] == [kind, ReferringSet, PhraseSet, ReferringSet]
    with pytest.raises(UserError, match="--chunk is for detection"):
        region_sets([captions], tokenizer, 64, short=32, longest=64, referring=False, chunk=3)
    with pytest.raises(UserError, match="--ap-library is for detection"):
        region_sets([captions], tokenizer, 64, short=32, longest=64, referring=False, library="pycocotools")
