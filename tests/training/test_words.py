"""What a run takes for the words of its training, against the texts that its sources give."""

import json
from itertools import chain

import pytest
from odvg_records import DETECTION, GROUNDING
from region_files import coco_box, coco_file, mdetr_file, write_image
from small_runs import RECIPE
from statement_files import write_statements
from toy_runs import run
from vqa_files import QUESTIONS, vqa_source

from fiber_cli.checkpoints import directory, saving
from fiber_cli.checkpoints.config import had_small_letters
from fiber_cli.checkpoints.digests import read_digests
from fiber_cli.checkpoints.words import WORDS_FILE, read_words
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.data import words as data_words
from fiber_cli.data.each_caption import EachCaption
from fiber_cli.data.source import CaptionSource, QuestionSource, RegionSource, Source, StatementSource
from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.data.sources.karpathy import KarpathySource
from fiber_cli.data.sources.mdetr import MdetrSource
from fiber_cli.data.sources.odvg import OdvgSource
from fiber_cli.data.sources.scenes import SceneDetection, SceneGrounding, SceneReferring, ScenesSource
from fiber_cli.data.sources.statements import StatementFile
from fiber_cli.data.words import words_in, words_of
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED
from fiber_cli.tasks import declared
from fiber_cli.tasks.training_data import TrainingData
from fiber_cli.training import words as training_words
from fiber_cli.training.work import work

CAPTIONS, QUESTIONS_ALONE, STATEMENTS, BOXES = (CaptionSource,), (QuestionSource,), (StatementSource,), (RegionSource,)


def words_of_source(source: Source, reads: tuple[type[Source], ...]) -> set[str]:
    texts = source.all_texts(reads)
    assert texts is not None
    return set(words_in(texts))


def words_of_samples(texts) -> set[str]:
    return set(chain.from_iterable(map(words_of, texts)))


def test_scenes_tell_other_words_than_their_samples_have():
    for texts in ("captions", "queries", "full_names", "counted_names"):
        source = ScenesSource("train", 1200, texts=texts, objects=(2, 3))
        read = words_of_samples(chain.from_iterable(map(source.captions, range(1200))))
        assert words_of_source(source, CAPTIONS) == read
        assert words_of_source(EachCaption(source.first(3)), CAPTIONS) == read
    for pairs in (True, False):
        source = ScenesSource("train", 1000, pairs=pairs)
        said = words_of_samples(each.text for i in range(1000) for each in source.statements(i))
        assert words_of_source(source, STATEMENTS) == said
    asked = words_of_samples(each.text for i in range(1000) for each in source.questions(i))
    assert words_of_source(source, QUESTIONS_ALONE) == asked
    assert source.all_texts((Source,)) is None


def test_scenes_with_boxes_tell_other_words_than_their_samples_have():
    grounding = SceneGrounding("train", 1500)
    assert words_of_source(grounding, BOXES) == words_of_samples(grounding.regions(i).caption for i in range(1500))
    referring = SceneReferring("train", 800, alike=True)
    assert words_of_source(referring, BOXES) == words_of_samples(referring.regions(i).caption for i in range(800))
    detection = SceneDetection("train", 5, names="all_levels")
    assert {"crescent", "striped", "object"} <= words_of_source(detection, BOXES)


def test_files_of_annotations_tell_other_words_than_they_hold(tmp_path, vqa_folder):
    write_image(tmp_path / "a.jpg")
    sentences = [{"raw": "A Dog."}, {"raw": "two dogs, running"}]
    image = {"filename": "a.jpg", "split": "train", "sentences": sentences}
    held_out = {"filename": "b.jpg", "split": "test", "sentences": [{"raw": "a zebra"}]}
    (tmp_path / "k.json").write_text(json.dumps({"images": [image, held_out]}))
    captions = KarpathySource(tmp_path / "k.json", tmp_path)
    assert words_of_source(captions, CAPTIONS) == {"a", "dog", "two", "dogs", "running"}
    assert captions.all_texts(QUESTIONS_ALONE) is None
    questions = vqa_source(vqa_folder)
    assert words_of_source(questions, QUESTIONS_ALONE) == words_of_samples(text for _, _, text in QUESTIONS)
    answerable = questions.answerable(lambda question: "animal" in question.text)
    assert words_of_source(answerable, QUESTIONS_ALONE) == {"what", "animal", "is", "it"}
    rows = [{"sentence": "there is a Dog", "identifier": "1", "image": "x.png", "label": "True"}]
    statements = StatementFile(*write_statements(tmp_path, {"x.png": 60}, rows))
    assert words_of_source(statements, STATEMENTS) == {"there", "is", "a", "dog"}


def test_files_of_boxes_tell_other_words_than_they_hold(tmp_path):
    file = coco_file(tmp_path, [coco_box(7, 3, [1, 2, 10, 5])])
    prompts = {"cat": {"name": "feline", "suffix": " at home"}}
    names = words_of_source(CocoSource(file, tmp_path, prompts=prompts), BOXES)
    assert names == {"cat", "traffic", "light", "feline", "at", "home"}
    phrases = MdetrSource(mdetr_file(tmp_path, [[[2, 5]]]), tmp_path / "images")
    assert words_of_source(phrases, BOXES) == {"a", "cat", "left", "of", "dog"}
    (tmp_path / "mixed.jsonl").write_text(json.dumps(GROUNDING) + "\n" + json.dumps(DETECTION))
    assert words_of_source(OdvgSource(tmp_path / "mixed.jsonl", tmp_path), BOXES) == {"a", "cat", "and", "dog"}


def small(*overrides: str, task: str = "{name: coarse}"):
    return parse_recipe(RECIPE.replace("{name: coarse}", task), "test", overrides)


def saved_work(folder, made):
    return saving.save(
        folder, 1, config=made.config, weights=made.task.state_dict(), tokenizer=made.tokenizer, words=made.words
    )


def test_a_checkpoint_lacks_words_that_the_one_before_knew(tmp_path):
    captions = work(small())
    assert {"star", "background"} <= captions.words
    assert not captions.words & {"exactly", "which one", "colour", "shape"}
    before = saved_work(tmp_path / "a", captions)
    after = work(small(task="{name: vqa}"), init_from=before)
    assert after.words >= captions.words | {"colour", "how", "many", "no"}  # questions, and answers as labels
    # Where it is not known what the one before saw, nothing may be called unseen.
    (before / WORDS_FILE).unlink()
    (before / "SHA256SUMS").unlink()
    assert work(small(task="{name: vqa}"), init_from=before).words is None


def test_capitals_are_read_as_if_training_had_shown_them(tmp_path, monkeypatch):
    captions = work(small())
    assert captions.config["small_letters"] is True
    before = saved_work(tmp_path / "a", captions)
    assert work(small(task="{name: vqa}"), init_from=before).config["small_letters"] is True
    monkeypatch.setattr(ScenesSource, "all_texts", lambda source, reads: ["a star", "A star"])
    assert work(small()).config["small_letters"] is False
    with_capitals = saved_work(tmp_path / "b", work(small()))
    monkeypatch.undo()
    # What is told of one checkpoint holds for those that begin with it.
    assert work(small(task="{name: vqa}"), init_from=with_capitals).config["small_letters"] is False
    monkeypatch.setattr(ScenesSource, "all_texts", Source.all_texts)
    assert work(small()).config["small_letters"] is False


def test_what_a_source_cannot_tell_is_called_unseen(monkeypatch):
    monkeypatch.setattr(ScenesSource, "all_texts", Source.all_texts)
    assert work(small()).words is None


def test_words_are_called_unseen_although_there_are_too_many_to_keep(monkeypatch):
    monkeypatch.setattr(data_words, "MOST", 9)
    assert work(small()).words is None


def test_words_of_a_contributed_kind_of_source_are_called_unseen():
    class Sounds(Source):
        pass

    class Declared:
        reads = (Sounds,)

    data = TrainingData([ScenesSource("train", 3)], None, None)
    assert training_words.words_of_training(data, Declared, None) is None


def test_the_other_side_of_mirrored_captions_is_called_unseen(tmp_path):
    phrases = MdetrSource(mdetr_file(tmp_path, [[[2, 5]]], caption="the leftmost cat"), tmp_path / "images")
    data = TrainingData([phrases], None, None)
    assert training_words.words_of_training(data, declared("grounding"), None) >= {"rightmost", "leftmost"}


@pytest.mark.parametrize("words", [frozenset({"star", "caf\u00e9"}), None])
def test_a_run_that_goes_on_has_other_words(tmp_path, words):
    assert run(tmp_path, signal_at=2, words=words).codes == [EXIT_STOPPED]
    assert read_words(directory.resolve(tmp_path)) == words
    # Of a run that goes on they are not gathered again.
    assert run(tmp_path, resume=True, words=None).codes == [EXIT_OK]
    checkpoint = directory.resolve(tmp_path)
    assert checkpoint.name == "step-000008"
    assert read_words(checkpoint) == words
    assert had_small_letters(checkpoint) == (words is not None)
    assert (WORDS_FILE in read_digests(checkpoint)) == (words is not None)
