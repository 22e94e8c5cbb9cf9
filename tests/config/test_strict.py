"""Strict reading of dataclasses: every error at once, with its place and the nearest valid name."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from good_recipe import good, problems
from postponed import LateSettings, LateTextsSettings

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.config.strict import Builder, OneOf, describe, unknown
from fiber_cli.config.yaml_nodes import compose
from fiber_cli.settings import RecipeError, option


@dataclass(frozen=True)
class Square:
    shape: Literal["square"]
    side: float = option("Side.", gt=0, le=9)
    colours: tuple[str, ...] = option("Colours.", (), formerly="tints")


@dataclass(frozen=True)
class Circle:
    shape: Literal["circle", "disc"]
    radius: int = option("Radius.", 1, ge=1)
    extra: dict[str, Any] = option("Anything.", factory=dict)
    label: str | dict[str, Any] | None = option("A name, or names.", None)


AnyShape = Annotated[object, OneOf("shape", {"square": Square, "circle": Circle, "disc": Circle})]


@dataclass(frozen=True)
class Size:
    width: int = option("Width.")


@dataclass(frozen=True)
class Drawing:
    shape: AnyShape
    pair: tuple[int, float] = option("Two numbers.", (1, 2.0))
    on: bool = option("Yes or no.", False)


def read(text: str) -> tuple[Any, Builder]:
    builder = Builder({"radius": "shape.radius"})
    return builder.build(Drawing, compose(text, "x"), ""), builder


def test_values_of_every_kind_are_read_with_their_types():
    drawing, builder = read(
        "{shape: {shape: disc, radius: 2.0, extra: {a: [1]}, label: {b: c}}, pair: [3, 4], on: true}"
    )
    assert builder.errors == []
    assert drawing == Drawing(Circle("disc", 2, {"a": [1]}, {"b": "c"}), (3, 4.0), True)
    assert type(drawing.shape.radius) is int
    assert type(drawing.pair[1]) is float
    assert builder.places["shape.radius"] == "x:1"
    assert read("{shape: {shape: circle, label: a}}")[0].shape.label == "a"
    assert read("{shape: {shape: circle, label: null}}")[0].shape.label is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "recipe: wanted a mapping, got 5"),
        ("{}", "shape: 'shape' is missing; one of square, circle, disc"),
        ("{shape: disc}", "shape: wanted a mapping with 'shape', got 'disc'"),
        ("{shape: {shape: dics}}", "shape: unknown shape 'dics' (did you mean 'disc'?); valid: square, circle, disc"),
        ("{shape: {shape: square}}", "shape.side: missing (Side)"),
        ("{shape: {shape: square, side: -1}}", "shape.side: -1.0 is out of range, must be greater than 0"),
        ("{shape: {shape: square, side: 9.5}}", "shape.side: 9.5 is out of range, must be at most 9"),
        ("{shape: {shape: square, side: .nan}}", "shape.side: wanted a finite number, got nan"),
        ("{shape: {shape: square, side: true}}", "shape.side: wanted a number, got True"),
        ("{shape: {shape: square, side: 1, colours: red}}", "shape.colours: wanted a list, got 'red'"),
        ("{shape: {shape: square, side: 1, colours: [3]}}", "shape.colours.0: wanted text, got 3"),
        ("{shape: {shape: circle, radius: 1.5}}", "shape.radius: wanted a whole number, got 1.5"),
        ("{shape: {shape: circle, extra: [1]}}", "shape.extra: wanted a mapping, got [1]"),
        ("{shape: {shape: circle}, pair: [1]}", "pair: wanted a list of 2, got [1]"),
        ("{shape: {shape: circle}, on: 1}", "on: wanted true or false, got 1"),
        (
            "{shape: {shape: circle}, radius: 1}",
            "radius: unknown key 'radius' (did you mean 'shape.radius'?); valid: shape, pair, on",
        ),
        (
            "{shape: {shape: circle}, pairs: [1]}",
            "pairs: unknown key 'pairs' (did you mean 'pair'?); valid: shape, pair, on",
        ),
        ("{shape: {shape: circle}, on: true, on: false}", "on: given twice, first at x:1"),
    ],
)
def test_what_is_wrong_is_told_with_place_and_mend(text, message):
    _, builder = read(text)
    assert builder.errors == [f"x:1: {message}"]
    assert message.partition(":")[0].replace("recipe", "") in builder.bad


def test_a_former_name_reads_to_the_present_one():
    drawing, builder = read("{shape: {shape: square, side: 1, tints: [red]}}")
    assert drawing.shape.colours == ("red",)
    assert builder.errors == []


@pytest.mark.parametrize("names", [("tints", "colours"), ("colours", "tints"), ("tints", "tints")])
def test_former_and_present_name_together_are_given_twice(names):
    text = f"shape: {{shape: square, side: 1, {names[0]}: [a],\n {names[1]}: [b]}}"
    _, builder = read(text)
    assert builder.errors == ["x:2: shape.colours: given twice, first at x:1"]


def test_errors_of_a_missing_section_are_those_of_its_keys():
    @dataclass(frozen=True)
    class Page:
        drawing: Drawing
        size: Size

    builder = Builder({})
    page = builder.build(Page, compose("{}", "x"), "")
    assert builder.errors == [
        "x:1: drawing.shape: 'shape' is missing; one of square, circle, disc",
        "x:1: size.width: missing (Width)",
    ]
    assert page.size == Size(None)


def test_types_in_words():
    assert describe(AnyShape) == "mapping: `square`, `circle`, `disc`"
    assert describe(Literal["a", 1]) == "`a`, `1`"
    assert describe(tuple[float, ...]) == "list of a number"
    assert describe(tuple[int, bool]) == "a whole number, true or false"
    assert describe(str | dict[str, Any] | None) == "text or a mapping or null"


def test_unknown_names_come_with_the_nearest_or_a_hint():
    assert unknown("key", "lrr", ["lr", "steps"]) == "unknown key 'lrr' (did you mean 'lr'?); valid: lr, steps"
    assert unknown("key", "zzz", ["lr"], "a.zzz") == "unknown key 'zzz' (did you mean 'a.zzz'?); valid: lr"
    assert unknown("key", "zzz", ["lr"]) == "unknown key 'zzz'; valid: lr"


def test_a_key_of_another_form_is_advised_where_it_already_stands():
    with pytest.raises(RecipeError) as told:
        resolve_recipe("tiny_vqa", ["task.compare_over=global_batch"])
    (error,) = (line for line in str(told.value).splitlines() if "compare_over" in line)
    assert "unknown key 'compare_over'; valid: name" in error


def test_all_errors_come_at_once_with_place_key_value_and_nearest_name():
    text = """\
model: {preset: tinny}
task: {name: coarse, itc: 0}
data:
  train:
    - {kind: karpaty}
    - {kind: karpathy, json: 5}
    - {kind: scenes, weight: 0}
  global_batch: 5
optim:
  lr: fast
  warm_up: 5
  betas: [0.9]
  steps: 5
  epochs: 6
runtime: {micro_batch: 8, global_batch: 100, zero_stage: true, compile: yes, seed: 1.5, seed: 2}
"""
    expected = [
        r"good.yaml:1: model.preset: unknown value 'tinny' \(did you mean 'tiny'\?\); valid: tiny, mini, small, "
        "base, large",
        r"good.yaml:5: data.train.0: unknown kind 'karpaty' \(did you mean 'karpathy'\?\); valid: .*",
        r"good.yaml:6: data.train.1.json: wanted text, got 5",
        r"good.yaml:6: data.train.1.images: missing .*",
        r"good.yaml:7: data.train.2.weight: 0.0 is out of range, must be greater than 0",
        r"good.yaml:8: data.global_batch: unknown key 'global_batch' "
        r"\(did you mean 'runtime.global_batch'\?\); valid: .*",
        r"good.yaml:10: optim.lr: wanted a number, got 'fast'",
        r"good.yaml:11: optim.warm_up: unknown key 'warm_up' \(did you mean 'warmup'\?\); valid: .*",
        r"good.yaml:12: optim.betas: wanted a list of 2, got \[0.9\]",
        r"good.yaml:15: runtime.zero_stage: unknown value 'True'; valid: 0, 1, 2, 3",
        r"good.yaml:15: runtime.compile: unknown value 'yes'; valid: auto, or true or false",
        r"good.yaml:15: runtime.seed: wanted a whole number, got 1.5",
        r"good.yaml:15: runtime.seed: given twice, first at good.yaml:15",
        r"good.yaml:10: optim: steps=5 and epochs=6: give exactly one of them",
        r"good.yaml:15: runtime.global_batch: 100 is no multiple .* 96 or 104, or micro_batch to 5",
        r"good.yaml:2: task.itm_negatives: hard negatives .*",
    ]
    told = problems(text=text)
    assert len(told) == len(expected), told
    for line, pattern in zip(told, expected, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr", "'optim.lr' is not of the form section.key=value"),
        ("optim..lr=1", "'optim..lr=1' is not of the form"),
        ("optim.lr=[", "optim.lr: '[' is not valid YAML"),
        ("optim.lrr=1", "optim.lrr: unknown key 'lrr' (did you mean 'lr'?)"),
        (
            "optim.steps=99999999999999999999999",
            "optim.steps: 99999999999999999999999 is out of range, must be at most",
        ),
        ("optim.lr=-1", "optim.lr: -1.0 is out of range, must be greater than 0"),
        ("optim.lr=.inf", "optim.lr: wanted a finite number, got inf"),
        ("optim.lr.x=1", "optim.lr.x: '1e-3' is a single value, it has no 'x'"),
        ("data.train.2.weight=1", "data.train.2.weight: the list has 2 items, counted from 0"),
        ("data.train.first.weight=1", "data.train.first.weight: the list has 2 items"),
        (
            "log.validate_every=epochs",
            "log.validate_every: unknown value 'epochs' (did you mean 'epoch'?); valid: epoch, or a whole number",
        ),
        ("log.validate_every=1.5", "log.validate_every: wanted a whole number or `epoch`, got 1.5"),
        ("runtime.compile=1", "runtime.compile: wanted true or false or `auto`, got 1"),
        ("log.validate_every=0", "log.validate_every: 0 is out of range, must be at least 1"),
        ("data.train=scenes", "data.train: wanted a list, got 'scenes'"),
        ("data.train=[scenes]", "data.train.0: wanted a mapping with 'kind', got 'scenes'"),
        ("data.train=[{weight: 1}]", "data.train.0: 'kind' is missing; one of karpathy, webdataset"),
        ("data.train=[]", "data.train: names no source"),
        ("data=5", "data: wanted a mapping, got 5"),
        ("task.name=vqq", "task: unknown name 'vqq' (did you mean 'vqa'?); valid: coarse, "),
        ("deepspeed.optimizer.type=Adam", "deepspeed: leave out what follows from the other sections"),
    ],
)
def test_errors_of_overrides_name_the_command_line(override, message):
    (line,) = problems(override)
    assert line.startswith(f"command line: {message}"), line


def test_a_word_beside_numbers_is_no_value():
    val = "data.val=[{kind: scenes, count: 2}]"
    values = [good(f"log.validate_every={value}", val).log.validate_every for value in ("epoch", "5", "null")]
    assert values == ["epoch", 5, None]


def test_overrides_that_fit_raise_nothing():
    assert good("optim.lr=2").optim.lr == 2.0


def test_postponed_annotations_are_no_types():
    node = compose("{name: late, luck: 2, sides: [6, 0]}", "here")
    builder = Builder({})
    builder.build(LateSettings, node, "task")
    assert [error.split(": ", 1)[1] for error in builder.errors] == [
        "task.luck: 2.0 is out of range, must be at most 1",
        "task.sides.1: 0 is out of range, must be at least 1",
    ]
    assert Builder({}).build(LateSettings, compose("{name: late, sides: [6]}", "here"), "task").sides == (6,)
    texts = Builder({}).build(LateTextsSettings, compose("{kind: texts, path: x, length: 2}", "here"), "data.train.0")
    assert (texts.path, texts.length) == ("x", 2)
