"""From a recipe to what a run works on."""

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.training.work import work

QUICK = ["data.workers=0", "data.train.0.count=20", "data.val.0.count=2", "optim.steps=2", "optim.warmup=0"]


def test_what_a_validation_has_to_say_of_its_numbers_is_shown_once(capsys):
    recipe = resolve_recipe("tiny_retrieval", [*QUICK, "runtime.micro_batch=2", "runtime.global_batch=2"])
    planned = work(recipe)
    planned.task.eval()
    for expected in (1, 0):
        assert planned.validate(planned.task)["itc/ir@10"] == 100
        told = capsys.readouterr().err
        assert told.count("ir@5, ir@10 of whole rankings cannot be missed") == expected


def test_a_reward_over_images_says_that_published_goes_over_pairs(tmp_path, capsys):
    table = tmp_path / "df.json"
    table.write_text('{"ref_len": 9, "document_frequency": {}}')
    reward = ["task.objective=cider", f"task.cider_df={table}", "runtime.micro_batch=2", "runtime.global_batch=2"]
    steps = {}
    for captions in ("random", "each"):
        planned = work(resolve_recipe("tiny_caption", [*QUICK, *reward, f"data.captions={captions}"]))
        steps[captions] = planned.steps_per_epoch
        assert ("data.captions=each" in capsys.readouterr().err) == (captions == "random")
    assert steps["random"] == 10
    assert steps["each"] > 30
