"""The names of DeepSpeed's settings: those of the installed version, and what is said of others."""

import typing
from enum import Enum
from importlib import import_module
from types import NoneType, UnionType

import pytest
from good_recipe import good
from good_recipe import problems as recipe_problems

from fiber_cli.config.deepspeed_names import NAMES, problems


@pytest.mark.parametrize(
    ("passed", "problem"),
    [
        ({"zero_optimisation": {}}, "unknown key of DeepSpeed 'zero_optimisation' (did you mean 'zero_optimization'?)"),
        ({"gradient_cliping": 1}, "unknown key of DeepSpeed 'gradient_cliping' (did you mean 'gradient_clipping'?)"),
        (
            {"flops_profiler": {"enabled": True, "output_file": "pics/p0.jpg"}},
            "flops_profiler.output_file: DeepSpeed writes over whatever file is there",
        ),
        ({"nonsense": 1}, "unknown key of DeepSpeed 'nonsense'; valid: "),
        (
            {"zero_optimization": {"reduce_bucket_sise": 5}},
            "unknown key of zero_optimization 'reduce_bucket_sise' (did you mean 'reduce_bucket_size'?)",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"devise": "cpu"}}},
            "unknown key of zero_optimization.offload_optimizer 'devise' (did you mean 'device'?)",
        ),
        ({"checkpoint": {"load_universal": True}}, "unknown key of checkpoint 'load_universal'"),
        ({"zero_optimization": 3}, "zero_optimization: wanted a mapping, got 3"),
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage: wanted 0 or 1 or 2 or 3, got 4"),
        ({"zero_optimization": {"stage": True}}, "zero_optimization.stage: wanted 0 or 1"),
        ({"zero_optimization": {"reduce_bucket_size": "big"}}, "reduce_bucket_size: wanted int, got 'big'"),
        ({"zero_optimization": {"reduce_bucket_size": -1}}, "reduce_bucket_size: wanted int, got -1"),
        ({"zero_optimization": {"overlap_comm": "yes"}}, "overlap_comm: wanted bool or null, got 'yes'"),
        ({"zero_optimization": {"offload_param": {"device": "gpu"}}}, "device: wanted 'none' or 'cpu' or 'nvme'"),
        ({"gradient_clipping": float("nan")}, "gradient_clipping: wanted float, got nan"),
        ({"gradient_clipping": float("inf")}, "gradient_clipping: wanted float, got inf"),
        ({"gradient_clipping": 10**400}, "gradient_clipping: wanted float, got 1000"),
        ({"wall_clock_breakdown": 1}, "wall_clock_breakdown: wanted bool, got 1"),
        ({"communication_data_type": "int8"}, "communication_data_type: wanted 'fp32' or"),
    ],
)
def test_unknown_names_and_wrong_values_are_told(passed, problem):
    (told,) = problems(passed)
    assert problem in told


def test_every_mistake_is_told_at_once():
    passed = {"wall_clock_breakdwn": True, "zero_optimization": {"stage": "two", "overlap": True}}
    assert len(list(problems(passed))) == 3


@pytest.mark.parametrize(
    "passed",
    [
        {},
        {"zero_optimization": {"reduce_bucket_size": 5e8, "overlap_comm": None, "stage": 2}},
        {"flops_profiler": {"enabled": True, "module_depth": -1, "output_file": None}, "gradient_clipping": 1},
        {"timers": {"throughput": {"enabled": False}}, "activation_checkpointing": {"number_checkpoints": None}},
    ],
)
def test_what_deepspeed_reads_is_passed_on(passed):
    assert list(problems(passed)) == []


def test_a_recipe_with_an_unknown_name_is_refused_with_its_place():
    (line,) = recipe_problems("deepspeed.zero_optimization.reduce_bucket_sise=5e8")
    assert line.startswith("command line: deepspeed: unknown key of zero_optimization 'reduce_bucket_sise'")
    (line,) = recipe_problems("deepspeed.fp16={enabled: true}")
    assert "leave out what follows from the other sections" in line
    assert good("deepspeed.dump_state=true").deepspeed == {"dump_state": True}


MODELS = {
    "zero_optimization": "deepspeed.runtime.zero.config:DeepSpeedZeroConfig",
    "compile": "deepspeed.compile.config:CompileConfig",
    "comms_logger": "deepspeed.comm.config:CommsLoggerConfig",
    "tensorboard": "deepspeed.monitor.config:TensorBoardConfig",
    "csv_monitor": "deepspeed.monitor.config:CSVConfig",
    "comet": "deepspeed.monitor.config:CometConfig",
    "wandb": "deepspeed.monitor.config:WandbConfig",
}


def of_deepspeed(path):
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def kinds(model):
    """The names of one of DeepSpeed's models, with the kinds of their values as the table has them."""
    return {field.alias or name: kind(field.annotation) for name, field in model.model_fields.items()}


def kind(annotation):
    arguments, origin = typing.get_args(annotation), typing.get_origin(annotation)
    if origin is typing.Annotated:
        return kind(arguments[0])
    if origin in (typing.Union, UnionType):
        parts = [kind(each) for each in arguments]
        sections = [part for part in parts if isinstance(part, dict)]
        return sections[0] if sections else " | ".join(dict.fromkeys(parts))
    if origin is typing.Literal:
        return " | ".join(map(repr, arguments))
    if annotation is NoneType:
        return "null"
    if "model_fields" in dir(annotation):
        return kinds(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(repr(member.value) for member in annotation)
    known = {bool: "bool", int: "int", float: "float", list: "list", dict: "mapping"}
    return known.get(origin or annotation, "str")


@pytest.mark.parametrize("section", MODELS)
def test_a_section_has_the_names_of_the_installed_deepspeed(section):
    assert NAMES[section] == kinds(of_deepspeed(MODELS[section]))


def test_single_names_are_those_that_deepspeed_reads():
    text = {str(value) for value in vars(import_module("deepspeed.runtime.constants")).values()}
    for module in (
        "runtime.swap_tensor.constants",
        "runtime.model_checkpointing.constants",
        "runtime.activation_checkpointing.config",
        "profiling.constants",
    ):
        text |= {str(value) for value in vars(import_module(f"deepspeed.{module}")).values()}
    for name, kind_of_name in NAMES.items():
        if name in MODELS or name == "timers":
            continue
        assert name in text, name
        for inner in kind_of_name if isinstance(kind_of_name, dict) else ():
            assert inner in text, f"{name}.{inner}"


@pytest.mark.parametrize(
    "passed", ["zero_optimization.zenflow={topk_ratio: 7}", "zero_optimization.offload_optimizer={ratio: 5}"]
)
def test_values_that_deepspeed_refuses_are_told_before_the_data_are_read(passed):
    from fiber_cli.settings import RecipeError
    from fiber_cli.training.deepspeed_config import deepspeed_config
    from fiber_cli.training.deepspeed_engine import check_config

    with pytest.raises(RecipeError, match="deepspeed: DeepSpeed refuses these settings") as told:
        check_config(deepspeed_config(good(f"deepspeed.{passed}"), 1))
    assert "\n" not in str(told.value)
    check_config(deepspeed_config(good("deepspeed.gradient_clipping=1"), 1))
