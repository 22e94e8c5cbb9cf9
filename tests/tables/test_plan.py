"""What rows need."""

import re
import shutil

import pytest
from tables.conftest import finish, write_results

from fiber_cli.config.resolve import shipped_recipes
from fiber_cli.data.sources.karpathy import KarpathySettings
from fiber_cli.tables import needs, plan
from fiber_cli.tables.paper import TABLES
from fiber_cli.tables.plan import Planner
from fiber_cli.tables.results import Results
from fiber_cli.tables.rows import Cell, Evaluated


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """All programs are installed, wherever the tests run."""
    for module in (needs, plan):
        monkeypatch.setattr(module, "missing_programs", lambda metric: None)


def states(runs, data) -> dict[str, str]:
    """ "table/row/column" → state, of rows with a command."""
    planner = Planner(Results(runs), data)
    found = {}
    for name, table in TABLES.items():
        for row in planner.rows(table):
            for need in row.needs:
                if need.source.recipe in shipped_recipes():
                    label = row.row.label.strip()
                    found |= {f"{name}/{label}/{column}": need.state for column in need.columns}
    return found


def test_something_is_missing_where_nothing_is(runs, data):
    assert set(states(runs, data).values()) == {"to make"}


def test_nothing_is_missing_where_nothing_is_there(runs, tmp_path):
    assert set(states(runs, tmp_path / "empty").values()) == {"missing"}


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        ("vqa/v2_OpenEnded_mscoco_test-dev2015_questions.json", r"3/.*/VQAv2 test-dev"),
        ("vqa/v2_mscoco_val2014_annotations.json", r"3/.*/(VQAv2 test-dev|test-std)"),
        ("nlvr2/test1.json", r"3/.*/test-P"),
        ("nlvr2/images/train", r"3/.*/(NLVR2 dev|test-P)"),
        ("nocaps/nocaps_test_image_info.json", r"5/.*/(NoCaps test C|test S)"),
        # What RefCOCO is tested on is left out of both stages of its chain, so that all of it is needed.
        ("mdetr/finetune_refcoco+_testB.json", r"7/.*"),
        ("mdetr/finetune_refcocog_test_corrected.json", r"7/.*"),
        ("mdetr/finetune_refcocog_train.json", r"7/.*/RefCOCOg.*"),
        ("lvis/lvis_v1_train.json", r"8/.*fine-tuned/(LVIS.*|APc|APf)"),
        ("lvis/lvis_v1_minival_inserted_image_name.json", r"8/.*/(LVIS.*|APc|APf)"),
        ("flickr30k_entities/test.txt", r"6/.*/test R@.*"),
        ("flickr30k/flickr30k-images", r"(4/Flickr30k .*|3/FIBER-B/Flickr30k.*)"),
        ("cc3m/00000.tar", r"([3457]/.*|6/FIBER-B/.*|8/(zero-shot|fine-tuned)/.*|fig5/.*)"),
        ("vg/VG_100K_2/1.jpg", r"([3457]/.*|6/FIBER-B/.*|8/(zero-shot|fine-tuned)/.*|fig5/.*)"),
        ("objects365/train/1.jpg", r"(6/.*|7/.*|8/.*|fig5/.*)"),
        ("coco/images/train2014", r"(?!2/).*"),
    ],
)
def test_rows_without_their_data_are_not_told(runs, data, removed, missing):
    path = data / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = states(runs, data)
    told = {place for place, state in found.items() if state != "to make"}
    assert told == {place for place in found if re.fullmatch(missing, place)}


@pytest.mark.parametrize(
    ("spoilt", "content", "missing", "words"),
    [
        ("nlvr2/test1.json", "", r"3/.*/test-P", " (empty)"),
        (
            "nlvr2/test1.json",
            '{"sentence": "x"}\n{"sentence": "x',
            r"3/.*/test-P",
            " (cut off: its JSON does not end)",
        ),
        (
            "lvis/lvis_v1_minival_inserted_image_name.json",
            '{"images": [{"id": 1},',
            r"8/.*/(LVIS.*|APc|APf)",
            " (cut off",
        ),
        ("nocaps/nocaps_test_image_info.json", '{"images": [', r"5/.*/(NoCaps test C|test S)", " (cut off"),
        ("mdetr/finetune_refcocog_train.json", "[1, 2", r"7/.*/RefCOCOg.*", " (cut off"),
        ("objects365/annotations/objects365_train.json", "", r"(6/.*|7/.*|8/.*|fig5/.*)", " (empty)"),
        (
            "odinw/PascalVOC/train/annotations_without_background.json",
            "{",
            r"(8/.*fine-tuned/ODinW.*|fig5/.*(1 shot|[35] shots|10 shots|data))",
            " (cut off",
        ),
        ("cc3m/00000.tar", "", r"([3457]/.*|6/FIBER-B/.*|8/(zero-shot|fine-tuned)/.*|fig5/.*)", " (empty: "),
    ],
)
def test_files_that_were_cut_count_as_there(runs, data, spoilt, content, missing, words):
    (data / spoilt).write_text(content)
    found = states(runs, data)
    told = {place for place, state in found.items() if state == "missing"}
    assert told == {place for place in found if re.fullmatch(missing, place)}
    said = set()
    for table in TABLES.values():
        for row in Planner(Results(runs), data).rows(table):
            for need in row.needs:
                said.update(need.missing)
    name = "cc3m" if spoilt.startswith("cc3m") else spoilt
    assert any(each.startswith(name + words) for each in said)


@pytest.mark.parametrize(
    ("content", "is_whole"),
    [
        ('{"a": [1]}\n', True),
        ('\ufeff[{"a": 1}]  \n\n', True),
        ('{"a": 1}\n{"a": 2}', True),
        ('[{"a": 1}', False),
        ('{"a": [1]', False),
        ("<html>no such page</html>", False),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_whole_json_counts_as_cut(tmp_path, content, is_whole, encoding):
    file = tmp_path / "a.json"
    file.write_text(content, encoding=encoding)
    source = KarpathySettings(kind="karpathy", json=str(file), images=str(tmp_path), split="test")
    assert (needs._files_of([source], tmp_path).missing == ()) is is_whole


def test_what_is_missing_has_other_names_than_the_published_ones(runs, tmp_path):
    planner = Planner(Results(runs), tmp_path / "empty")
    published = needs._published()
    for table in TABLES.values():
        for row in planner.rows(table):
            for need in row.needs:
                if isinstance(need.source, Evaluated):
                    assert set(need.files.missing) <= published, need.files.missing


def test_a_finished_training_wants_its_data(runs, data):
    finish(runs / "nlvr2")
    shutil.rmtree(data / "cc3m")
    shutil.rmtree(data / "nlvr2" / "images")
    found = states(runs, data)
    assert found["3/FIBER-B/NLVR2 dev"] == "to make"
    assert found["3/FIBER-B/test-std"] == "missing"


def test_what_a_finished_training_started_from_is_needed(runs, data):
    finish(runs / "fine")
    planner = Planner(Results(runs), data)
    zero_shot = next(planner.needs(TABLES["8"].rows[0]))
    fine_tuned = next(planner.needs(TABLES["8"].rows[2]))
    assert [need.stage.run for need in zero_shot.stages] == ["fine"]
    assert [need.stage.run for need in fine_tuned.stages] == ["fine", "coco_detection"]


def test_a_figure_that_is_there_is_made_again(runs, data):
    finish(runs / "nlvr2")
    write_results(runs / "nlvr2", "nlvr2", "dev", "nlvr2", {"nlvr2/accuracy": 70.0})
    assert states(runs, data)["3/FIBER-B/NLVR2 dev"] == "there"
    shutil.rmtree(data / "nlvr2")
    assert states(runs, data)["3/FIBER-B/NLVR2 dev"] == "there"


def test_predictions_that_are_there_are_made_again(runs, data):
    finish(runs / "vqav2")
    write_results(runs / "vqav2", "vqav2", "test-dev", "vqa", {})
    found = states(runs, data)
    assert (found["3/FIBER-B/VQAv2 test-dev"], found["3/FIBER-B/test-std"]) == ("to send", "to make")


def test_some_sets_are_taken_for_all(runs, data):
    shutil.rmtree(data / "odinw" / "Packages")
    found = states(runs, data)
    assert found["8/zero-shot/ODinW-13 AP"] == found["fig5/FIBER-B/3 shots"] == "in part"
    finish(runs / "fine")
    write_results(runs / "fine", "odinw13-12-of-13", "test", "detection", {"detection/ap": 3.0})
    assert states(runs, data)["8/zero-shot/ODinW-13 AP"] == "there"


def test_a_part_is_kept_where_the_rest_has_come(runs, data):
    finish(runs / "fine")
    write_results(runs / "fine", "odinw13-12-of-13", "test", "detection", {"detection/ap": 3.0})
    assert states(runs, data)["8/zero-shot/ODinW-13 AP"] == "to make"


def test_draws_that_are_not_there_are_asked_for(runs, data):
    draw = data / "odinw/Raccoon/Raccoon.v2-raw.coco/train/fewshot_train_shot5_seed30.json"
    draw.unlink()
    planner = Planner(Results(runs), data)
    by_columns = {need.columns: need for need in planner.needs(TABLES["fig5"].rows[0])}
    need = by_columns[("5 shots",)]
    assert need.state == "in part"
    assert need.command is not None
    assert (need.command.option("--shots"), need.command.option("--seeds")) == ("5", "3,300")
    assert by_columns[("10 shots",)].state == "to make"


def test_a_metric_whose_program_has_come_stays_missing(runs, data, monkeypatch):
    finish(runs / "caption_mle")
    metrics = {f"caption/{name}": 1.0 for name in ("bleu4", "meteor", "cider")}
    write_results(runs / "caption_mle", "coco_caption", "test", "caption", metrics)
    assert states(runs, data)["5/FIBER-B/SPICE"] == "to make"
    for module in (needs, plan):
        monkeypatch.setattr(module, "missing_programs", lambda metric: "SPICE" if "spice" in metric else None)
    assert states(runs, data)["5/FIBER-B/SPICE"] == "there"


def test_a_figure_without_a_command_is_to_be_made(runs, data):
    source = Evaluated("coco_itc", "coco", "test", starts_from="no_such_run")
    need = Planner(Results(runs), data).need([Cell("IR@1", 1.0, "itc/ir@1", (source,))])
    assert need.state == "missing"
    assert need.missing == ("no recipe's header has the command of coco_itc from runs/no_such_run",)


def test_costs_are_of_what_is_finished_too(runs, data):
    def hours() -> float:
        need = next(Planner(Results(runs), data).needs(TABLES["6"].rows[0]))
        return sum(cost.gpu_hours or 0 for cost in need.costs)

    whole = hours()
    finish(runs / "4m")
    assert 0 < hours() < whole
