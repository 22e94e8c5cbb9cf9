"""Whether a run may go on with a recipe."""

import pytest
import toy_training
from toy_runs import assert_equal, run, weights

from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError
from fiber_cli.training.resume import check_same_recipe


@pytest.fixture
def stored(tmp_path):
    """The recipe.yaml of a run of the toy."""
    file = tmp_path / "recipe.yaml"
    file.write_text(toy_training.recipe().to_yaml())
    return file


def test_the_same_recipe_is_let_through(stored):
    check_same_recipe(toy_training.recipe(), stored)


def test_settings_that_change_no_weight_may_differ(stored):
    check_same_recipe(toy_training.recipe({"log.every": 2, "data.workers": 3, "name": "other"}), stored)


def test_every_difference_is_listed(stored):
    with pytest.raises(UserError) as error:
        check_same_recipe(toy_training.recipe({"optim.lr": 0.5, "runtime.clip": 1.0, "optim.steps": 9}), stored)
    message = str(error.value)
    assert "3 settings differ" in message
    assert "optim.lr: 0.01 in the run, 0.5 now" in message
    assert "optim.steps: 8 in the run, 9 now" in message
    assert "runtime.clip: None in the run, 1.0 now" in message


def test_a_setting_that_did_not_exist_yet_has_its_default(stored):
    text = stored.read_text()
    assert "  text_mult: 1.0\n" in text
    stored.write_text(text.replace("  text_mult: 1.0\n", ""))
    check_same_recipe(toy_training.recipe(), stored)
    with pytest.raises(UserError, match=r"optim\.text_mult: 1\.0 in the run, 2\.0 now"):
        check_same_recipe(toy_training.recipe({"optim.text_mult": 2.0}), stored)


def test_a_setting_under_its_former_name_is_the_same_setting(stored):
    text = stored.read_text()
    assert "  as_published: none\n" in text
    stored.write_text(text.replace("  as_published: none\n", "  published: coarse\n"))
    check_same_recipe(toy_training.recipe({"optim.as_published": "coarse"}), stored)
    with pytest.raises(UserError, match=r"optim\.as_published: 'coarse' in the run, 'none' now"):
        check_same_recipe(toy_training.recipe(), stored)


@pytest.mark.parametrize(
    ("present", "former"), [("gold_as_published", "gold_published"), ("search_as_published", "published_search")]
)
def test_a_task_s_setting_under_its_former_name_is_the_same_setting(stored, present, former):
    recipe = toy_training.recipe({"task": {"name": "caption", "objective": "gold", present: True}})
    text = recipe.to_yaml()
    assert f"  {present}: true\n" in text
    stored.write_text(text.replace(present, former))
    check_same_recipe(recipe, stored)


def test_a_run_of_the_time_when_mini_was_small_is_of_the_same_preset(stored):
    recipe = toy_training.recipe({"model.preset": "mini"})
    text = recipe.to_yaml()
    assert "  preset: mini\n" in text
    before = text.replace("  preset: mini\n", "  preset: small\n").replace("  window: null\n", "")
    stored.write_text(before)
    check_same_recipe(recipe, stored)
    with pytest.raises(UserError, match=r"model\.preset: 'mini' in the run, 'tiny' now"):
        check_same_recipe(toy_training.recipe(), stored)


def test_a_run_of_the_present_small_is_no_run_of_mini(stored):
    small = toy_training.recipe({"model.preset": "small"})
    stored.write_text(small.to_yaml())
    check_same_recipe(small, stored)
    with pytest.raises(UserError, match=r"model\.preset: 'small' in the run, 'mini' now"):
        check_same_recipe(toy_training.recipe({"model.preset": "mini"}), stored)


def test_a_run_of_the_time_of_the_former_names_is_resumed(plain, tmp_path):
    """Its recipe.yaml has settings under former names and lacks those of today."""
    assert run(tmp_path, signal_at=2).codes == [EXIT_STOPPED]
    file = tmp_path / "recipe.yaml"
    text = file.read_text()
    assert "  as_published: none\n" in text
    before = text.replace("  as_published: none\n", "  published: none\n")
    before = before.replace("  text_mult: 1.0\n", "").replace("  stop_after: null\n", "")
    file.write_text(before)
    codes, log = run(tmp_path, resume=True)
    assert codes == [EXIT_OK], log
    assert_equal(weights(tmp_path), weights(plain))
    # What fiber did not write it does not rewrite.
    assert file.read_text() == before


LONGER = {"optim.schedule": "constant", "optim.warmup": 2}


def test_a_run_made_longer_ends_as_if_it_had_been_so_long_from_the_first(tmp_path):
    assert run(tmp_path / "short", recipe=LONGER | {"optim.steps": 4}).codes == [EXIT_OK]
    codes, log = run(tmp_path / "short", resume=True, recipe=LONGER | {"optim.steps": 8})
    assert codes == [EXIT_OK], log
    assert "resumed at step 4" in log
    assert "  steps: 8\n" in (tmp_path / "short/recipe.yaml").read_text()
    assert run(tmp_path / "long", recipe=LONGER | {"optim.steps": 8}).codes == [EXIT_OK]
    assert_equal(weights(tmp_path / "short"), weights(tmp_path / "long"))


def longer(stored, schedule, warmup, step, **lengths):
    """Checks a run of 8 steps that stands at `step`, with other lengths."""
    before = {"optim.schedule": schedule, "optim.warmup": warmup}
    stored.write_text(toy_training.recipe(before).to_yaml())
    changes = before | {f"optim.{name}": value for name, value in lengths.items()}
    check_same_recipe(toy_training.recipe(changes), stored, step=step, steps=16)


@pytest.mark.parametrize(("warmup", "step"), [(0, 1), (2, 1), (0.25, 4)])
def test_a_rate_that_does_not_know_its_end_keeps_a_run_from_being_longer(stored, warmup, step):
    longer(stored, "constant", warmup, step, steps=16)


@pytest.mark.parametrize(
    ("schedule", "warmup", "step", "lengths", "message"),
    [
        ("linear", 2, 8, {"steps": 16}, r"optim\.schedule=linear falls towards the end .* constant or plateau"),
        ("cosine", 2, 8, {"steps": 16}, r"optim\.schedule=cosine falls towards the end"),
        ("steps", 2, 8, {"steps": 16}, r"optim\.schedule=steps falls towards the end"),
        ("constant", 0.25, 3, {"steps": 16}, r"optim\.warmup=0\.25 is a share of the run, now 4 steps"),
        ("constant", 2, 8, {"steps": 4}, r"optim\.steps: 8 in the run, 4 now"),
        ("constant", 2, 8, {"steps": None, "epochs": 9}, r"optim\.epochs: None in the run, 9 now"),
    ],
)
def test_a_rate_that_would_have_been_another_keeps_a_run_as_long_as_it_was(
    stored, schedule, warmup, step, lengths, message
):
    with pytest.raises(UserError, match=message):
        longer(stored, schedule, warmup, step, **lengths)


def test_on_other_ranks_a_batch_is_cut_otherwise(stored):
    recipe = toy_training.recipe({"runtime.micro_batch": 4})
    check_same_recipe(recipe, stored, same_ranks=False)
    with pytest.raises(UserError, match=r"runtime\.micro_batch: 8 in the run, 4 now"):
        check_same_recipe(recipe, stored)
    with pytest.raises(UserError, match=r"runtime\.global_batch: 8 in the run, 4 now"):
        check_same_recipe(
            toy_training.recipe({"runtime.micro_batch": 4, "runtime.global_batch": 4}), stored, same_ranks=False
        )


def test_a_recipe_that_the_user_has_changed_is_rewritten(tmp_path):
    assert run(tmp_path, signal_at=2).codes == [EXIT_STOPPED]
    file = tmp_path / "recipe.yaml"
    changed = "# why this rate: see notes\n" + file.read_text().replace("lr: 0.01\n", "lr: 1.0e-2   # tuned\n")
    file.write_text(changed)
    codes, log = run(tmp_path, resume=True, recipe={"log.every": 2})
    assert codes == [EXIT_OK], log
    assert file.read_text() == changed
    assert "stays as it is: log.every: 1 in the run, 2 now" in log


def test_a_recipe_of_fiber_s_own_is_stale(tmp_path):
    assert run(tmp_path, signal_at=2).codes == [EXIT_STOPPED]
    codes, log = run(tmp_path, resume=True, recipe={"log.every": 2})
    assert codes == [EXIT_OK], log
    assert "  every: 2\n" in (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize("content", [None, b"", b"task: [", b"\xff\xfe", b"no_such_section: 1\n"])
def test_a_recipe_that_cannot_be_read_is_one_clear_error(stored, content):
    stored.unlink()
    if content is not None:
        stored.write_bytes(content)
    with pytest.raises(UserError, match="cannot be continued safely"):
        check_same_recipe(toy_training.recipe(), stored)
