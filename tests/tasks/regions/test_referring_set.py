"""The evaluation set of referring expressions."""

from region_predictions import perfect

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
