"""What ranks must have the same, on two real ones."""

import os

import pytest
from rank_processes import on_two_ranks

from fiber_cli.distributed.agreement import failing_together, require_agreement, require_shared_folder
from fiber_cli.distributed.meeting import ranks_in_words
from fiber_cli.errors import UserError
from fiber_cli.settings import RecipeError


def other_values(rank, folder):
    facts = {"lr": "0.1", "data[0]: the number of samples": f"{12 + rank}", "version": "1"}
    if rank == 1:
        facts["extra"] = "x" * 500
    require_agreement(lambda: facts)


def test_what_differs_is_not_named_with_values_ranks_and_host(tmp_path):
    first, second = on_two_ranks(tmp_path, other_values)
    assert first.kind == second.kind == "SharedError"
    assert (first.is_told, second.is_told) == (True, False)
    host = os.uname().nodename
    assert f"data[0]: the number of samples is 12 on rank 0 ({host}) but 13 on rank 1 ({host})" in first.error
    assert f"extra is absent on rank 0 ({host}) but xxx" in first.error
    assert "lr" not in first.error
    assert len(first.error.splitlines()) == 1
    assert len(first.error) < 600


def same_values(rank, folder):
    require_agreement(lambda: {"a": "1", "b": "2"} if rank else {"b": "2", "a": "1"})
    require_shared_folder(folder / "runs" / "new")
    return sorted(path.name for path in (folder / "runs" / "new").iterdir())


def test_ranks_that_agree_go_on_and_leave_nothing_behind(tmp_path):
    for ended in on_two_ranks(tmp_path, same_values):
        assert (ended.error, ended.result) == (None, [])


def one_cannot_look(rank, folder):
    require_agreement(lambda: {"size": str((folder / f"log{rank}").stat().st_size)} if rank else missing(folder))


def missing(folder):
    return {"size": str((folder / "missing").stat().st_size)}


def alone_in_error(rank, folder):
    with failing_together():
        if rank == 1:
            raise RecipeError("no such preset")


def together_in_error(rank, folder):
    with failing_together():
        raise UserError("no such images")


def both_in_error(rank, folder):
    with failing_together():
        raise UserError(f"no {rank}")


@pytest.mark.parametrize(
    ("function", "message", "code"),
    [
        (one_cannot_look, "rank 0 (HOST): No such file", 1),
        (alone_in_error, "rank 1 (HOST): no such preset", 2),
        (together_in_error, "no such images", 1),
        (both_in_error, "rank 0 (HOST): no 0", 1),
    ],
)
def test_a_rank_goes_on_when_another_fails(tmp_path, function, message, code):
    first, second = on_two_ranks(tmp_path, function)
    assert first.error.startswith(message.replace("HOST", os.uname().nodename))
    assert first.error == second.error
    assert (first.is_told, second.is_told) == (True, False)
    assert first.exit_code == second.exit_code == code


def private_folder(rank, folder):
    from fiber_cli.distributed import agreement

    agreement.VISIBLE_SECONDS = 0.5
    local = folder / str(rank)
    local.mkdir()
    os.chdir(local)
    require_shared_folder(agreement.Path("runs/a"))


def test_an_output_that_each_machine_has_for_itself_is_taken(tmp_path):
    first, second = on_two_ranks(tmp_path, private_folder)
    assert first.error == second.error
    assert f"{tmp_path}/0/runs/a, the output folder of rank 0 on " in first.error
    assert f"is not what rank 1 ({os.uname().nodename}) sees as {tmp_path}/1/runs/a" in first.error
    assert not list((tmp_path / "0" / "runs" / "a").iterdir())


def impossible_folder(rank, folder):
    (folder / "file").touch()
    require_shared_folder(folder / "file" / "run")


def test_an_output_that_cannot_be_made_is_no_error_of_all(tmp_path):
    first, second = on_two_ranks(tmp_path, impossible_folder)
    assert first.kind == second.kind == "SharedError"
    assert "Not a directory" in second.error


def test_in_one_process_there_is_something_to_agree_on(tmp_path):
    require_agreement(lambda: pytest.fail("looked for facts"))
    require_shared_folder(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(RecipeError), failing_together():
        raise RecipeError("as it is")


@pytest.mark.parametrize(
    ("ranks", "words"), [([3], "rank 3"), ([0, 1, 2, 5], "ranks 0 to 2, 5"), ([1, 3], "ranks 1, 3")]
)
def test_ranks_are_not_shortened(ranks, words):
    assert ranks_in_words(ranks) == words
