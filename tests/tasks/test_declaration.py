"""Declarations: what one leaves out is refused where it is made, and what it says is true of the task's module."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Literal

import pytest
from postponed import LateSettings, UnreadableSettings
from small_classifiers import CONFIG, shaken

from fiber_cli.checkpoints.weights import float32, load_into, named_weights
from fiber_cli.data.source import CaptionSource, QuestionSource, RegionSource
from fiber_cli.data.sources import open_source, source_format
from fiber_cli.errors import DeclarationError, UserError
from fiber_cli.settings import Owner, TaskSettings, field_types, option, owned
from fiber_cli.tasks import TASKS, declared
from fiber_cli.tasks.abilities import Answering, Embedding
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.declaration import Lazy, ParameterKinds, Rule, TaskDeclaration, WeightChanges, rule
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.nlvr2.task import Nlvr2Task
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.retrieval.task import RetrievalTask
from fiber_cli.tasks.vqa import VQA
from fiber_cli.tasks.vqa.task import VqaTask
from fiber_cli.training.optim import parameter_kind

FIELDS = [field.name for field in dataclasses.fields(TaskDeclaration)]


def declare(**changes) -> TaskDeclaration:
    """The declaration of VQA, changed."""
    return dataclasses.replace(VQA, **changes)


@dataclass(frozen=True)
class Guessing(TaskSettings):
    name: Literal["guessing"]
    luck: float = option("Of the guesser.", 0.5, ge=0, owner=Owner.MODEL)


def test_a_whole_declaration_is_taken():
    guessing = declare(name="guessing", settings=Guessing)
    assert guessing.can_read(QuestionSource)
    assert guessing.can_read(source_format("scenes").source)
    assert not guessing.can_read(CaptionSource)


@pytest.mark.parametrize("field", FIELDS)
def test_nothing_has_a_default(field):
    complete = {name: getattr(VQA, name) for name in FIELDS}
    del complete[field]
    with pytest.raises(TypeError, match=f"missing 1 required keyword-only argument: '{field}'"):
        TaskDeclaration(**complete)


def test_settings_of_another_task_are_refused():
    with pytest.raises(TypeError, match="task 'guess': Guessing needs a first field `name` whose Literal has 'guess'"):
        declare(name="guess", settings=Guessing)
    with pytest.raises(TypeError, match="task 'vqa': TaskSettings needs a first field `name`"):
        declare(settings=TaskSettings)


def test_settings_whose_first_field_is_not_the_name_are_refused():
    @dataclass(frozen=True)
    class Nameless:
        luck: float = option("Of the guesser.", 0.5, owner=Owner.MODEL)

    with pytest.raises(TypeError, match="Nameless needs a first field `name`"):
        declare(settings=Nameless)


@pytest.mark.parametrize("setting", [option("Of the guesser.", 0.5), 0.5, option("Of.", 0.5, owner="model")])
def test_a_setting_without_an_owner_is_refused(setting):
    @dataclass(frozen=True)
    class Ownerless(TaskSettings):
        name: Literal["guessing"]
        luck: float = setting

    with pytest.raises(TypeError, match="task 'guessing': the setting 'luck' does not say whose it is"):
        declare(name="guessing", settings=Ownerless)


@pytest.mark.parametrize("field", ["about", "reads", "scenes"])
def test_what_must_not_be_empty_is_not(field):
    with pytest.raises(TypeError, match=f"task 'vqa': {field} is empty"):
        declare(**{field: type(getattr(VQA, field))()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reads": (dict,)}, "reads: <class 'dict'> is no Source"),
        ({"reads": ("scenes",)}, "reads: 'scenes' is no Source"),
        ({"abilities": (Task,)}, "abilities: .*Task.* is no Ability"),
        ({"abilities": ("answering",)}, "abilities: 'answering' is no Ability"),
        ({"scenes": ({"kind": "scens"},)}, "scenes: .*'scens'.* names no kind of source"),
        ({"scenes": ({},)}, "scenes: {} names no kind of source"),
        ({"module": VqaTask}, "module is to be Lazy"),
        ({"training_data": len}, "training_data is to be Lazy"),
        ({"evaluation": "fiber_cli.tasks.vqa.evaluation:evaluation"}, "evaluation is to be Lazy"),
    ],
)
def test_what_is_of_another_type_is_refused(changes, message):
    with pytest.raises(TypeError, match=f"task 'vqa': {message}"):
        declare(**changes)


@pytest.mark.parametrize("path", ["", "module", "module:", ":name", "module:a.b", "module:a b", "a:b:c"])
def test_malformed_paths_are_refused_where_they_are_written(path):
    with pytest.raises(TypeError, match="is not of the form"):
        Lazy(path)


def test_a_path_is_loaded_when_it_is_asked_for():
    late = Lazy("fiber_cli.no_such_module:thing")
    with pytest.raises(DeclarationError, match=r"no_such_module:thing': there is no module fiber_cli.no_such_module$"):
        late.load()
    assert Lazy("fiber_cli.tasks.vqa.task:VqaTask").load() is VqaTask


def test_rules_are_functions_about_keys():
    @rule("task.luck", "optim.lr")
    def luck_needs_a_rate(recipe):
        return "needs a rate"

    assert isinstance(luck_needs_a_rate, Rule)
    assert luck_needs_a_rate.keys == ("task.luck", "optim.lr")
    assert luck_needs_a_rate.problem(None) == "needs a rate"


@pytest.mark.parametrize("name", TASKS)
def test_paths_of_declared_tasks_lead_somewhere(name):
    declaration = declared(name)
    assert issubclass(declaration.module.load(), Task)
    assert callable(declaration.training_data.load())
    assert callable(declaration.evaluation.load())


@pytest.mark.parametrize("name", TASKS)
def test_every_parameter_outside_the_encoder_is_named_once(name, modules):
    kinds = declared(name).parameters
    prefixes = (*kinds.heads, *kinds.cross_modal, *kinds.backbone)
    used = set()
    for parameter, _ in modules[name].named_parameters():
        if parameter.startswith("encoder."):
            continue
        naming = [prefix for prefix in prefixes if parameter.startswith(prefix)]
        assert len(naming) == 1, parameter
        assert parameter_kind(parameter, kinds) in ("head", "cross_modal", "backbone")
        used.update(naming)
    assert used == set(prefixes), "a prefix names no parameter"


#: What generates and pre-training need the MLM head, which retrieval has not.
STARTS = [("coarse", name) for name in TASKS]
STARTS += [("retrieval", name) for name in TASKS if name not in ("coarse", "caption", "vqa_generated")]
STARTS += [("fine", name) for name in ("detection", "grounding", "refexp")]


@pytest.mark.parametrize(("start", "name"), STARTS)
def test_weights_of_another_task_differ_as_declared(start, name, modules):
    """`--init-from`: what the task has beyond them is new, what it lacks is left out."""
    changes = declared(name).init_from
    task = {key for key, _ in modules[name].named_parameters()}
    weights = {key for key, _ in modules[start].named_parameters()}
    assert all(key.startswith(changes.fresh) for key in task - weights)
    assert all(key.startswith(changes.dropped) for key in weights - task)
    for prefix in changes.dropped:
        assert any(key.startswith(prefix) for key in named_weights(modules["coarse"])), prefix


@pytest.mark.parametrize("name", TASKS)
def test_what_may_be_new_is_of_the_task(name, modules):
    for prefix in declared(name).init_from.fresh:
        assert any(key.startswith(prefix) for key in named_weights(modules[name])), prefix


@pytest.mark.parametrize("make", [VqaTask, Nlvr2Task], ids=lambda make: make.__name__)
def test_a_coarse_checkpoint_is_copied_but_for_what_is_new_and_left_out(make):
    other = {"labels": 5} if make is VqaTask else {}
    head = "vqa." if make is VqaTask else "nlvr2."
    changes = declared(head.removesuffix(".")).init_from
    expected = {"expect_missing": changes.fresh, "expect_unexpected": changes.dropped}
    for start in (CoarseTask(CONFIG, queue_size=3), RetrievalTask(CONFIG)):
        weights = float32(named_weights(shaken(start)))
        task = make(CONFIG, **other)
        before = {name: value.clone() for name, value in task.state_dict().items()}
        fresh, dropped = load_into(task, weights, **expected)
        assert fresh == sorted(name for name in before if name.startswith(head))
        assert len(fresh) == 6
        assert set(dropped) == {name for name in weights if not name.startswith(("encoder.", "pool."))}
        for name, value in task.state_dict().items():
            assert value.equal(before[name] if name in fresh else weights[name]), name
        with pytest.raises(UserError, match=rf"6 missing, {len(dropped)} unexpected"):
            load_into(task, weights)
    # The head of one downstream task is nothing that another may lose without a word.
    rest = Nlvr2Task(CONFIG) if make is VqaTask else VqaTask(CONFIG, labels=5)
    with pytest.raises(UserError, match="0 missing, 6 unexpected"):
        load_into(task, named_weights(rest), **expected)


@pytest.mark.parametrize("name", TASKS)
def test_metrics_are_the_tasks_own_and_follow_from_its_settings(name, contexts):
    metrics = declared(name).metrics(contexts[name].settings)
    assert metrics
    assert len(set(metrics)) == len(metrics)
    assert all("/" in metric for metric in metrics)


@pytest.mark.parametrize("name", TASKS)
def test_settings_of_the_model_are_arguments_of_its_module(name, contexts):
    settings = contexts[name].settings
    assert contexts[name].settings == dataclasses.replace(settings, **owned(settings, Owner.MODEL, Owner.READER))
    constructor = typing.cast("type", declared(name).module.load()).__init__.__code__
    names = set(constructor.co_varnames[: constructor.co_argcount + constructor.co_kwonlyargcount])
    takes_any = bool(constructor.co_flags & 0x08)  # **settings, as of RetrievalTask
    assert takes_any or owned(settings, Owner.MODEL).keys() <= names


@pytest.mark.parametrize("name", TASKS)
def test_published_forms_have_settings_that_there_are(name):
    declaration = declared(name)
    for form in declaration.published_checkpoints.values():
        declaration.settings(name=name, **form.settings)
        assert form.stage in ("coarse", "fine")
        assert form.text_length > 0


#: Task → what its metrics name that its scenes, of one kind each, have nothing for; "*": of every task.
WITHOUT_SCENES = {
    "fine": {"grounding/any_box/r@1"},
    "detection": {"grounding/any_box/r@1", "refexp/acc@iou50"},
    "grounding": {"detection/ap", "detection/ap50", "refexp/acc@iou50"},
    "refexp": {"detection/ap", "detection/ap50", "grounding/any_box/r@1"},
    "*": {"odinw/ap", "lvis/fixed_ap"},
}
#: Metrics of captions that need Java, which a note names where they are left out.
WITH_JAVA = ("METEOR", "SPICE")


@pytest.mark.parametrize("name", TASKS)
def test_an_evaluation_does_not_give_the_metrics_that_are_declared(name, modules, contexts):
    declaration = declared(name)
    sources = []
    for scenes in declaration.scenes:
        settings = source_format(scenes["kind"]).settings
        sources.append(open_source(settings(**scenes, split="val", count=4)))
    evaluation = declaration.evaluation.load()(sources, contexts[name], EvaluationOptions())
    result = evaluation.measure(modules[name], PredictOptions(2, 0))
    expected = set(declaration.metrics(contexts[name].settings))
    expected -= WITHOUT_SCENES.get(name, set()) | WITHOUT_SCENES["*"]
    assert expected
    for metric in WITH_JAVA:
        if any(metric in note and "left out" in note for note in result.notes):
            expected -= {f"caption/{metric.lower()}"}
    measured = {metric.removesuffix(" (plain tokens)") for metric in result.metrics}
    assert expected <= measured


@pytest.mark.parametrize("name", TASKS)
def test_scenes_are_what_the_task_reads(name):
    declaration = declared(name)
    for scenes in declaration.scenes:
        scene_format = source_format(scenes["kind"])
        assert declaration.can_read(scene_format.source)
        scene_format.settings(**scenes, split="val", count=3)


def test_only_tasks_on_boxes_take_images_of_any_size():
    for name in TASKS:
        declaration = declared(name)
        assert declaration.free_image_size == (declaration.reads == (RegionSource,)), name


def test_no_prefixes_are_shared_by_kinds():
    kinds = ParameterKinds(heads=("a.",), cross_modal=("b.",), backbone=())
    assert parameter_kind("a.weight", kinds) == "head"
    with pytest.raises(ValueError, match=r"the parameter 'c\.weight' is outside the encoder"):
        parameter_kind("c.weight", kinds)
    assert WeightChanges((), ()) == declared("coarse").init_from


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verb": "train"}, "verb is 'train': give one of pretrain, finetune"),
        ({"verb": None}, "verb is None"),
        ({"evaluation_batch": 0}, "evaluation_batch is 0: give a whole number, at least 1"),
        ({"evaluation_batch": 2.0}, "evaluation_batch is 2.0"),
        ({"evaluation_batch": True}, "evaluation_batch is True"),
        ({"reads": QuestionSource}, "reads is to be a tuple"),
        ({"reads": [QuestionSource]}, "reads is to be a tuple"),
        ({"abilities": None}, "abilities is to be a tuple, not None"),
        ({"rules": [len]}, "rules is to be a tuple"),
        ({"rules": (len,)}, "rules: <built-in function len> is no Rule"),
        ({"scenes": {"kind": "scenes"}}, "scenes is to be a tuple"),
        ({"scenes": ({"kind": "scenes", "split": "val"},)}, "scenes: .*leave out split and count"),
        ({"metrics": ("vqa/accuracy",)}, "metrics is .*give a function"),
        ({"metrics": "vqa/accuracy"}, "metrics is .*give a function"),
        ({"free_image_size": "no"}, "free_image_size is 'no'"),
        ({"parameters": WeightChanges((), ())}, "parameters is .*no ParameterKinds"),
        ({"init_from": None}, "init_from is None, no WeightChanges"),
        ({"published_checkpoints": ("vqa",)}, "published_checkpoints is .*give a mapping"),
        ({"published_checkpoints": {"vqa": "coarse"}}, "published_checkpoints: 'vqa' is 'coarse', no PublishedForm"),
    ],
)
def test_a_value_of_another_type_is_declared(changes, message):
    with pytest.raises(DeclarationError, match=f"^task 'vqa': {message}"):
        declare(**changes)


@pytest.mark.parametrize(
    ("heads", "cross_modal", "message"),
    [
        ("vqa.", (), "heads is to be a tuple of texts, not 'vqa.'"),
        (["vqa."], (), "heads is to be a tuple"),
        (("",), (), "heads: '' is to be a text"),
        ((), (b"pool.",), "cross_modal: b'pool.' is to be a text"),
        (("pool.",), ("pool.",), "'pool.' in cross_modal and 'pool.' in heads begin the same names"),
        (("pool.text.",), ("pool.",), "'pool.' in cross_modal and 'pool.text.' in heads begin the same names"),
        (("encoder.text.",), (), "heads: 'encoder.text.' is inside the encoder"),
    ],
)
def test_what_are_no_prefixes_are_taken(heads, cross_modal, message):
    with pytest.raises(DeclarationError, match=message):
        ParameterKinds(heads=heads, cross_modal=cross_modal, backbone=())


@pytest.mark.parametrize(("fresh", "dropped"), [("vqa.", ()), ((), "itm."), (("",), ()), ((), (None,))])
def test_what_are_no_prefixes_may_be_new_or_left_out(fresh, dropped):
    with pytest.raises(DeclarationError, match=r"^init_from: (fresh|dropped)"):
        WeightChanges(fresh, dropped)


@pytest.mark.parametrize("names", ["vqa/accuracy", ["vqa/accuracy"], None, (1,)])
def test_a_text_is_a_tuple_of_metrics(names):
    wrong = declare(metrics=lambda settings: names)
    with pytest.raises(DeclarationError, match=r"task 'vqa': metrics gives .* which is no tuple of texts"):
        wrong.metric_names(VQA.settings(name="vqa"))


@pytest.mark.parametrize("name", TASKS)
def test_a_declared_task_has_other_abilities_than_its_module(name):
    declaration = declared(name)
    assert declaration.load_module() is declaration.module.load()
    missing = Embedding if Embedding not in declaration.abilities else Answering
    wrong = dataclasses.replace(declaration, abilities=(*declaration.abilities, missing))
    with pytest.raises(DeclarationError, match=f"task '{name}': abilities: .* is not derived from {missing.__name__}"):
        wrong.load_module()


def test_a_module_that_is_no_task_is_loaded():
    for path in ("fiber_cli.tasks.vqa.settings:VqaSettings", "fiber_cli.tasks.vqa.settings:vqa_metrics"):
        with pytest.raises(DeclarationError, match=f"task 'vqa': module: {path} is not derived from Task"):
            declare(module=Lazy(path)).load_module()


@pytest.mark.parametrize("field", ["module", "training_data", "evaluation"])
def test_a_wrong_path_does_not_name_its_task_and_field(field):
    for path, reason in (
        ("fiber_cli.tasks.vga.task:VqaTask", "there is no module fiber_cli.tasks.vga"),
        ("fiber_cli.tasks.vqa.task:VgaTask", "fiber_cli.tasks.vqa.task has no VgaTask"),
    ):
        lazy = getattr(declare(**{field: Lazy(path)}), field)
        with pytest.raises(DeclarationError, match=f"^task 'vqa': {field}: '{path}': {reason}$"):
            lazy.load()


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ({"kind": "scene_detection"}, "has no questions, which it reads"),
        ({"kind": "scenes", "colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_scenes_that_cannot_be_evaluated_are_declared(scenes, message):
    with pytest.raises(DeclarationError, match=f"task 'vqa': scenes: .*{message}"):
        declare(scenes=(scenes,)).scene_settings("val", 2)


@pytest.mark.parametrize("name", TASKS)
def test_scenes_have_the_settings_of_another_kind(name):
    for settings in declared(name).scene_settings("val", 2):
        assert type(settings) is source_format(settings.kind).settings


def test_postponed_annotations_are_no_types():
    assert declare(name="late", settings=LateSettings).settings is LateSettings
    assert field_types(LateSettings)["luck"] is float
    with pytest.raises(DeclarationError, match="the type of a field cannot be read"):
        field_types(UnreadableSettings)
