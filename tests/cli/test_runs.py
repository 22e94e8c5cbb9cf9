"""Runs below the current folder: one, or the two halves of retrieval."""

from pathlib import Path

import pytest
from run_folders import SCENES, make_run

from fiber_cli.checkpoints.runs import Wanted
from fiber_cli.cli.runs import Models, checkpoint_with, find_run, retrieval_models
from fiber_cli.errors import UserError
from fiber_cli.tasks.abilities import Answering, Captioning, Embedding, Matching

PAIRS = ("coarse", "retrieval")
ITC = Wanted("ITC", PAIRS, Embedding)
ITM = Wanted("ITM", PAIRS, Matching, option="--itm-checkpoint")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, ships):
    """An empty current folder, of the only process, and nothing that ships."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("SLURM_PROCID", raising=False)


def test_the_run_and_why_are_told_once_for_all_ranks(tmp_path, capsys, monkeypatch):
    make_run(tmp_path, "vqa", SCENES)
    assert checkpoint_with(Answering, "answers", None) == Path("runs/vqa0")
    assert capsys.readouterr().err == "checkpoint: runs/vqa0, the newest run for answers\n"
    monkeypatch.setenv("RANK", "1")
    checkpoint_with(Answering, "answers", None)
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"(?s)no run below runs/ is for captions.*\n  runs/vqa0 is a run of vqa$"):
        checkpoint_with(Captioning, "captions", None)


def test_one_run_that_can_both_is_one_model_and_told_once(tmp_path, capsys):
    make_run(tmp_path, "coarse", SCENES, itm=0.0)
    make_run(tmp_path, "coarse", SCENES)
    assert retrieval_models(None, None, ITC, ITM) == Models(Path("runs/coarse1"))
    assert capsys.readouterr().err == "checkpoint: runs/coarse1, the newest run for ITC\n"


def test_the_half_that_a_named_checkpoint_lacks_is_found(tmp_path, capsys):
    itc = make_run(tmp_path, "retrieval", SCENES, itm=0.0)
    itm = make_run(tmp_path, "retrieval", SCENES, itc=0.0)
    both = make_run(tmp_path, "retrieval", SCENES)
    make_run(tmp_path, "retrieval", SCENES, itc=0.0)
    newest = Path("runs/retrieval3")
    assert retrieval_models(itc, None, ITC, ITM) == Models(itc, newest)
    assert capsys.readouterr().err == "itm-checkpoint: runs/retrieval3, the newest run for ITM\n"
    assert retrieval_models(itm, None, ITC, ITM) == Models(Path("runs/retrieval2"), itm)
    assert retrieval_models(both, None, ITC, ITM) == Models(both)
    assert retrieval_models(itc, itm, ITC, ITM) == Models(itc, itm)
    assert retrieval_models(None, itm, ITC, ITM) == Models(Path("runs/retrieval2"), itm)
    assert retrieval_models(None, None, ITC, ITM) == Models(Path("runs/retrieval2"), newest)


def test_without_one_half_the_other_is_not_taken_for_it(tmp_path):
    make_run(tmp_path, "retrieval", SCENES, itm=0.0)
    with pytest.raises(
        UserError, match=r"(?s)is for ITM; name a checkpoint with --itm-checkpoint.*without an ITM head"
    ):
        retrieval_models(None, None, ITC, ITM)


def test_a_folder_without_runs_is_told():
    with pytest.raises(UserError, match=r"no run of task coarse or retrieval lies below runs/: name"):
        find_run(ITC)
