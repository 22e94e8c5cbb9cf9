"""Arrays in a file: what was written is read, and damage is told."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from fiber_cli.data.mapped_file import NO_CHECKSUM, Pieces, read_mapped, write_arrays, write_mapped
from fiber_cli.errors import WRONG_CONTENT

ARRAYS = {"numbers": np.arange(7), "parts": np.array([0.5, -0.25], np.float16), "nothing": np.empty((0, 3), np.float32)}
#: Has the words by which the checksum is found, as a text of a user may.
METADATA = {"fiber": f'"crc32":"{NO_CHECKSUM}"', "said": "ä"}


def test_what_is_read_is_not_what_was_written(tmp_path):
    write_mapped(tmp_path / "file", ARRAYS, METADATA)
    arrays, metadata = read_mapped(tmp_path / "file")
    assert metadata == METADATA
    as_library_reads = load_file(tmp_path / "file")
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], expected)
        np.testing.assert_array_equal(as_library_reads[name], expected)


def test_a_flipped_bit_is_read(tmp_path):
    file = tmp_path / "file"
    write_mapped(file, ARRAYS, METADATA)
    whole = file.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises((*WRONG_CONTENT, OSError)):
            read_mapped(file)


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole + b"\0", lambda whole: b""])
def test_a_file_of_another_length_is_read(tmp_path, change):
    file = tmp_path / "file"
    write_mapped(file, ARRAYS, METADATA)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises((*WRONG_CONTENT, OSError)):
        read_mapped(file)


def test_pieces_are_written_otherwise_than_the_whole(tmp_path):
    whole = np.arange(10, dtype=np.float32).reshape(5, 2)
    write_arrays(tmp_path / "whole", {"rows": whole}, {})
    write_arrays(tmp_path / "pieces", {"rows": Pieces(whole.dtype, (5, 2), iter([whole[:2], whole[2:]]))}, {})
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
