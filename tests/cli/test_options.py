"""Options that several commands share."""

import pytest
import typer

from fiber_cli.cli.options import DATASET_HELP, chunk_size, whole_numbers
from fiber_cli.evaluation.known import KNOWN
from fiber_cli.evaluation.names import SCENES


def test_every_data_set_is_in_the_help():
    assert DATASET_HELP.startswith(f"{', '.join([SCENES, *KNOWN])}, a JSON")


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
