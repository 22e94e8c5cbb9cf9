"""The evaluation set of referring expressions."""

import json

from region_files import mdetr_file
from region_predictions import perfect

from fiber_cli.data.sources.mdetr import MdetrSource
from fiber_cli.data.sources.scenes import SceneGrounding, SceneReferring
from fiber_cli.tasks.regions.referring_set import ReferringSet


def test_referring_set(tokenizer):
    source = SceneReferring("val", 5)
    evalset = ReferringSet(source, tokenizer, 64, short=64)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=5, workers=0)))
    assert batch["positive_map"].sum(1).tolist() == (batch["mask"].sum(1) - 2).tolist()
    score = evalset.score(perfect(source, range(4), lambda i: 0))
    assert score.metrics["refexp/acc@iou50"] == score.metrics["refexp/acc@giou50"] == 80
    assert len(score.files["expressions.json"]) == 5
    assert ReferringSet(SceneGrounding("val", 3), tokenizer, 64).left_out[0][1].startswith("an expression has one box")


def test_a_file_without_annotations_cannot_be_predicted(tokenizer, tmp_path):
    path = mdetr_file(tmp_path, [], dataset_name="refcoco")
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    evalset = ReferringSet(MdetrSource(path, tmp_path / "images"), tokenizer, 64, short=64)
    evalset.check()
    score = evalset.score({})
    assert score.metrics == {}
    assert [answer["id"] for answer in score.files["expressions.json"]] == ["12"]
    assert evalset.remarks() == ["mixed has no annotations: predicted only"]
