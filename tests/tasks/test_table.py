"""The table of tasks and what is read from all of them."""

import subprocess
import sys

import pytest

from fiber_cli import tasks
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.config.schema import schema_markdown
from fiber_cli.errors import DeclarationError, UserError
from fiber_cli.tasks import (
    TASKS,
    SettingsByName,
    declarations,
    declared,
    published_forms,
    tasks_with,
)
from fiber_cli.tasks.abilities import Answering, Captioning, Detecting, Embedding, Matching


def test_names_of_the_table_are_those_of_the_declarations():
    assert [declaration.name for declaration in declarations()] == list(TASKS)


def test_a_line_that_names_another_task_is_refused(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "guessing", "vqa:VQA")
    with pytest.raises(TypeError, match="TASKS names vqa:VQA for 'guessing', which declares 'vqa'"):
        declared("guessing")


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(UserError, match="task 'juggling' is unknown to this version; it knows coarse, "):
        declared("juggling")


def test_settings_classes_are_found_by_name():
    by_name = SettingsByName()
    assert list(by_name) == list(TASKS)
    assert len(by_name) == len(TASKS)
    for name in TASKS:
        assert by_name[name] is declared(name).settings
    with pytest.raises(KeyError):
        by_name["juggling"]


def test_tasks_are_found_by_what_they_can_do():
    assert tasks_with(Embedding) == tasks_with(Matching) == ("coarse", "retrieval")
    assert tasks_with(Answering) == ("vqa", "vqa_generated")
    assert tasks_with(Captioning) == ("caption",)
    assert tasks_with(Detecting) == ("fine", "detection", "grounding", "refexp")


def test_published_checkpoints_become_these_tasks():
    becomes = {name: declaration.name for name, (declaration, _) in published_forms().items()}
    same = {name: name for name in ("coarse", "vqa", "nlvr2", "caption", "fine", "detection", "grounding", "refexp")}
    more = {"coco-detection": "detection", "lvis": "detection", "refcoco": "refexp"}
    assert becomes == same | more | {"retrieval-itc": "retrieval", "retrieval-itm": "retrieval"}
    text_lengths = {name: form.text_length for name, (_, form) in published_forms().items()}
    assert text_lengths == {name: 40 if name == "coarse" else 256 if _is_fine(name) else 50 for name in becomes}


def _is_fine(name: str) -> bool:
    return published_forms()[name][1].stage == "fine"


def test_every_task_is_trained_by_one_of_the_two_commands():
    verbs = {declaration.name: declaration.verb for declaration in declarations()}
    assert {name for name, verb in verbs.items() if verb == "pretrain"} == {"coarse", "fine"}
    assert set(verbs.values()) == {"pretrain", "finetune"}


PROGRAM = """
import sys
from fiber_cli.tasks import declarations
names = [declaration.name for declaration in declarations()]
print([name for name in ("torch", "transformers", "deepspeed") if name in sys.modules])
"""


def test_declarations_load_no_torch():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("vga:VQA", "there is no module fiber_cli.tasks.vga"),
        ("vqa:VGA", "fiber_cli.tasks.vqa has no VGA"),
        ("vqa", "give folder:DECLARATION"),
        ("vqa:VqaSettings", "VqaSettings is no TaskDeclaration"),
    ],
)
def test_a_misprint_in_the_table_breaks_other_tasks(monkeypatch, capsys, line, message):
    whole = list(TASKS)
    monkeypatch.setitem(tasks.TASKS, "guessing", line)
    told = f"the line 'guessing': '{line}' of TASKS in fiber_cli/tasks/__init__.py: {message}"
    with pytest.raises(DeclarationError, match=told):
        declared("guessing")
    tasks._tell_once.cache_clear()
    for _ in range(2):
        assert [declaration.name for declaration in declarations()] == whole
    assert capsys.readouterr().err == f"fiber: left out: {told}\n"
    assert resolve_recipe("tiny").task.name == "coarse"
    assert "`vqa`" in schema_markdown()
    with pytest.raises(DeclarationError, match="guessing"):
        resolve_recipe("tiny", ["task.name=guessing"])
