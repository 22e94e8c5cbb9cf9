"""Which shards folders, globs and ranges name."""

import pytest
from tar_files import shard_sample, write_tar

from fiber_cli.data.shard_paths import expand_braces, find_shards
from fiber_cli.errors import UserError


def test_finding_shards(tars, tmp_path):
    every = [str(tars / f"{n:05d}.tar") for n in range(3)]
    assert find_shards(str(tars)) == every == find_shards(str(tars / "*.tar"))
    assert find_shards(str(tars / "{00001..00002}.tar")) == every[1:]
    assert find_shards([every[2], str(tars)]) == [every[2], *every[:2]]  # each once
    with pytest.raises(UserError, match=r"no tar shards at .*00003.tar, .*00004.tar; give a folder"):
        find_shards(str(tars / "{00002..00004}.tar"))
    for empty in (str(tmp_path / "none"), str(tmp_path / "none*.tar"), []):
        with pytest.raises(UserError, match="no tar shards at"):
            find_shards(empty)
    (tmp_path / "[odd]").mkdir()
    odd = write_tar(tmp_path / "[odd]" / "a.tar", shard_sample("x"))
    assert find_shards(str(tmp_path / "[odd]")) == [str(odd)] == find_shards(str(odd))


def test_braces():
    assert expand_braces("a{08..11}") == ["a08", "a09", "a10", "a11"]
    assert expand_braces("{9..11}.tar") == ["9.tar", "10.tar", "11.tar"]
    assert expand_braces("{x,y}/{0..1}") == ["x/0", "x/1", "y/0", "y/1"]
    assert expand_braces("plain") == ["plain"]
    assert len(expand_braces("{00000..00331}")) == 332


@pytest.mark.parametrize(
    "pattern", ["{0..99999999}.tar", "{a,b}" * 40, "{0..9}" * 30, "{0.." + "9" * 5_000 + "}", "{" + "," * 2**21 + "}"]
)
def test_patterns_without_end_are_refused(pattern):
    with pytest.raises(UserError, match=r"names more than 1,000,000 shards"):
        find_shards(pattern)
