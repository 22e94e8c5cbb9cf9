"""Scenes as files: what the readers of their forms make of them is what the built-in sources give."""

import errno
import json

import numpy as np
import pytest
from PIL import Image

from fiber_cli.data import scene_files
from fiber_cli.data.scene_files import PATTERN, write_scenes
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.expressions import expressions
from fiber_cli.data.scenes.layout import scene
from fiber_cli.data.scenes.queries import queries
from fiber_cli.data.scenes.statements import statements
from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.data.sources.karpathy import KarpathySource
from fiber_cli.data.sources.mdetr import MdetrSource
from fiber_cli.data.sources.scenes import SceneDetection, SceneGrounding, ScenesSource
from fiber_cli.data.sources.statements import StatementFile
from fiber_cli.data.sources.vqa import VqaSource
from fiber_cli.errors import UserError

COUNT = 6
SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "drawn"
    write_scenes(folder, "val", COUNT, image_size=SIZE)
    return folder


@pytest.fixture(scope="module")
def scenes():
    return [scene(0, "val", number, SIZE) for number in range(COUNT)]


def test_a_picture_is_not_the_scenes(folder, scenes):
    for number, one in enumerate(scenes):
        picture = Image.open(folder / "images" / PATTERN.format(image_id=number))
        assert np.array_equal(np.asarray(picture), np.asarray(draw(one)))


def test_captions_or_queries_are_other_ones(folder, scenes):
    source = ScenesSource("val", COUNT, image_size=SIZE)
    captions = KarpathySource(folder / "captions.json", folder / "images", "val")
    asked = KarpathySource(folder / "queries.json", folder / "images", "val")
    for number, one in enumerate(scenes):
        assert captions.captions(number) == source.captions(number)
        assert asked.captions(number) == tuple(query.text for query in queries(one))


def test_boxes_or_their_names_are_other_ones(folder):
    source = SceneDetection("val", COUNT, image_size=SIZE)
    read = CocoSource(folder / "boxes.json", folder / "images")
    assert list(read.names) == list(source.names)
    for number in range(COUNT):
        np.testing.assert_allclose(read.regions(number).boxes, source.regions(number).boxes, rtol=1e-5)
        assert read.regions(number).labels.tolist() == source.regions(number).labels.tolist()


def test_phrases_lose_a_box_or_a_span(folder):
    source = SceneGrounding("val", COUNT, image_size=SIZE)
    read = MdetrSource(folder / "phrases.json", folder / "images")
    assert read.refers is False
    for number in range(COUNT):
        ours, theirs = source.regions(number), read.regions(number)
        assert theirs.caption == ours.caption
        assert boxes_with_spans(theirs) == boxes_with_spans(ours)


def boxes_with_spans(regions):
    return {
        (tuple(np.round(box, 2).tolist()), tuple(spans))
        for box, spans in zip(regions.boxes, regions.spans, strict=True)
    }


def test_an_expression_has_another_box(folder, scenes):
    read = MdetrSource(folder / "expressions.json", folder / "images")
    assert read.refers is True
    wanted = [(expression.text, expression.box) for one in scenes for expression in expressions(one)]
    assert len(read) == len(wanted)
    for number, (text, box) in enumerate(wanted):
        regions = read.regions(number)
        assert regions.caption == text
        np.testing.assert_allclose(regions.boxes[0], box, rtol=1e-5)


def test_questions_lose_their_answers(folder):
    source = ScenesSource("val", COUNT, image_size=SIZE)
    read = VqaSource(folder / "questions.json", folder / "images", folder / "answers.json", PATTERN)
    wanted = [question for number in range(COUNT) for question in source.questions(number)]
    for number, question in enumerate(wanted):
        (asked,) = read.questions(number)
        assert (asked.text, asked.answers, asked.answer_type) == (
            question.text,
            question.answers,
            question.answer_type,
        )


def test_statements_lose_whether_they_are_true(folder, scenes):
    read = StatementFile(folder / "statements.jsonl", folder / "images")
    wanted = [(statement.text, statement.label) for one in scenes for statement in statements(one)]
    assert [(read.statements(i)[0].text, read.statements(i)[0].label) for i in range(len(read))] == wanted
    # Each stands alone: consistency is of statements with several pictures.
    assert len({read.statements(i)[0].group for i in range(len(read))}) == len(read)


def test_statements_about_two_pictures_are_about_other_ones(folder):
    source = ScenesSource("val", COUNT, image_size=SIZE)
    read = StatementFile(folder / "pairs.jsonl", folder / "images")
    wanted = [(number, said) for number in range(COUNT) for said in source.statements(number)]
    assert len(read) == len(wanted)
    for i, (number, said) in enumerate(wanted):
        (statement,) = read.statements(i)
        assert (statement.text, statement.label) == (said.text, said.label)
        for picture, drawn in zip(read.images(i), source.images(number), strict=True):
            assert np.array_equal(np.asarray(picture), np.asarray(drawn))


def test_a_single_picture_has_statements_about_two(tmp_path):
    write_scenes(tmp_path / "one", "val", 1, image_size=SIZE)
    assert (tmp_path / "one" / "statements.jsonl").is_file()
    assert not (tmp_path / "one" / "pairs.jsonl").exists()


def test_pictures_are_drawn_that_no_memory_holds(tmp_path):
    with pytest.raises(UserError, match="image_size is 100000; give a number of pixels from 32 to 4096"):
        write_scenes(tmp_path / "large", "val", 1, image_size=100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_written_into(tmp_path):
    (tmp_path / "own.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        write_scenes(tmp_path, "val", 1)
    with pytest.raises(UserError, match="not an empty folder"):
        write_scenes(tmp_path / "own.txt", "val", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["own.txt"]


def test_a_full_disk_leaves_half_of_the_scenes(tmp_path, monkeypatch):
    def full(one):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scene_files, "draw", full)
    with pytest.raises(UserError, match="free some space"):
        write_scenes(tmp_path / "drawn", "val", 2)
    assert list(tmp_path.iterdir()) == []


def test_scenes_are_other_ones_when_they_are_made_again(folder, tmp_path):
    write_scenes(tmp_path / "again", "val", COUNT, image_size=SIZE)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert json.loads((folder / "boxes.json").read_text())["images"][0]["width"] == SIZE
