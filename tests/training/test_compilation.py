"""`auto` compiles long runs on GPUs, where torch.compile runs; whoever asks for what does not run is told why."""

import logging
import shutil

import pytest
import torch
from good_recipe import good, problems

from fiber_cli.errors import UserError
from fiber_cli.training import compilation as module
from fiber_cli.training.compilation import LONG_RUN, compilation, compiling_problem

GPU, CPU = torch.device("cuda"), torch.device("cpu")
BROKEN = "no compiler of C"


@pytest.fixture
def finds(monkeypatch):
    """Sets what trying to compile finds, and counts the tries."""
    tries = []

    def set_finding(problem):
        def find(target):
            tries.append(target)
            return problem

        monkeypatch.setattr(module, "compiling_problem", find)
        return tries

    return set_finding


def of(*settings, target=GPU, steps=LONG_RUN):
    return compilation(good(*settings).runtime, target, steps)


def test_nobody_asks_and_long_runs_on_gpus_are_not_compiled(finds):
    finds(None)
    used, line = of()
    assert used
    assert "runtime.compile" in line


def test_nobody_asks_and_minutes_go_by(finds):
    tries = finds(None)
    for nothing_compiled in (of(target=CPU), of(steps=LONG_RUN - 1), of("runtime.compile=false")):
        assert nothing_compiled == (False, "")
    assert not tries


def test_a_gpu_that_cannot_compile_ends_or_is_not_told(finds):
    finds(BROKEN)
    used, line = of()
    assert not used
    assert line.endswith(f"torch.compile does not run here: {BROKEN}")


def test_weights_that_zero_gathers_are_compiled_or_it_is_not_told(finds):
    tries = finds(None)
    used, line = of("runtime.zero_stage=3")
    assert not used
    assert "ZeRO 3" in line
    assert not tries
    (problem,) = problems("runtime.compile=true", "runtime.zero_stage=3")
    assert "set runtime.zero_stage to at most 2, or compile to auto or false" in problem


@pytest.mark.parametrize("target", [GPU, CPU])
def test_who_asks_is_not_heard(finds, target):
    finds(None)
    assert of("runtime.compile=true", target=target, steps=1).used


def test_who_asks_for_what_does_not_run_is_not_told(finds):
    finds(BROKEN)
    with pytest.raises(UserError, match=f"torch.compile does not run here: {BROKEN}; mend that, or set it to false"):
        of("runtime.compile=true", target=CPU)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_a_machine_with_a_compiler_is_refused():
    torch._dynamo.reset()
    assert compiling_problem(CPU) is None


def test_a_missing_compiler_is_not_found_or_told_at_length(capfd):
    import torch._inductor.config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": ("/no/such/compiler",)}), fresh_cache():
        problem = compiling_problem(CPU)
    assert "/no/such/compiler" in problem
    assert "\n" not in problem
    out, err = capfd.readouterr()
    assert "Error in codegen" not in out + err
    assert not logging.root.manager.disable
