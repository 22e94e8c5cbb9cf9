"""Options that several commands share."""

import inspect

import pytest
import typer

from fiber_cli.cli.app import app
from fiber_cli.cli.options import DATASET_HELP, chunk_size, placement_words, whole_numbers, with_placement
from fiber_cli.evaluation.known import KNOWN
from fiber_cli.evaluation.names import SCENES
from fiber_cli.inference.fiber import Fiber
from fiber_cli.placement import Placement


def test_every_data_set_is_in_the_help():
    assert DATASET_HELP.startswith(f"{', '.join([SCENES, *KNOWN])}, a JSON")


#: Commands without a model, or that compute nothing with one, and why they need no word of how it computes.
NO_MODEL = {
    "plan": "a training is counted and not computed; --device is the GPU that is planned for",
    "scenes": "pictures are drawn",
    "vqa-answers": "answers are counted",
    "cider-df": "words are counted",
    "convert": "weights are renamed",
    "push": "files are sent",
    "data get": "files are fetched",
    "data check": "annotations are read",
    "data shard": "files are packed",
    "data dedup": "pictures are compared by their hashes",
    "models": "names are listed",
    "models card": "a text is shown",
    "recipes": "names are listed",
    "recipes show": "a text is shown",
    "recipes schema": "settings are listed",
}


def commands(command, path=()):
    """The name and the parameters of every command, hidden ones too."""
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield " ".join(path), command.params
    for name, each in below.items():
        yield from commands(each, (*path, name))


ALL_COMMANDS = dict(commands(typer.main.get_command(app)))


def test_a_command_without_a_model_is_not_there():
    assert NO_MODEL.keys() < ALL_COMMANDS.keys()


@pytest.mark.parametrize("name", sorted(ALL_COMMANDS.keys() - NO_MODEL.keys()))
def test_a_command_that_runs_a_model_lacks_how_and_where_it_computes(name):
    options = {option: parameter for parameter in ALL_COMMANDS[name] for option in parameter.opts}
    for option in ("--precision", "--device", "--tf32"):
        assert option in options, f"fiber {name} has no {option}: see `options.py`"
    assert "--no-tf32" in options["--tf32"].secondary_opts


@pytest.mark.parametrize("made_by", [Fiber, Fiber.from_pretrained, Placement])
def test_python_lacks_how_and_where_a_model_computes(made_by):
    assert {"precision", "device", "tf32"} <= inspect.signature(made_by).parameters.keys()


def test_the_same_is_said_to_the_commands_that_one_starts():
    assert placement_words("bf16", "cpu", False) == ("--precision", "bf16", "--device", "cpu", "--no-tf32")
    assert placement_words(None, None, True) == ("--tf32",)
    assert placement_words(None, None, None) == ()


def test_options_and_overrides_that_differ_are_both_taken():
    assert with_placement(["optim.lr=1"], "bf16", True) == ["optim.lr=1", "runtime.precision=bf16", "runtime.tf32=true"]
    assert with_placement(None, None, False) == ["runtime.tf32=false"]
    with_placement(["runtime.precision=bf16", "runtime.tf32=true"], "bf16", True)
    for override, message in (("runtime.precision=fp32", "--precision bf16"), ("runtime.tf32=true", "--no-tf32")):
        with pytest.raises(typer.BadParameter, match=f"{message} beside {override}: give one of them"):
            with_placement([override], "bf16", False)


def test_a_chunk_is_a_number_or_auto():
    assert [chunk_size(text) for text in ("auto", "1", "40")] == ["auto", 1, 40]
    for text in ("0", "-1", "1.5", "all", ""):
        with pytest.raises(typer.BadParameter, match=r"give a whole number from 1, or auto"):
            chunk_size(text)


def test_top_k_is_one_number_or_several():
    assert whole_numbers("50") == (50,)
    assert whole_numbers("10, 20,50") == (10, 20, 50)
    for text in ("", "10,", "0", "10,x", "-1"):
        with pytest.raises(typer.BadParameter, match="give whole numbers from 1"):
            whole_numbers(text)
