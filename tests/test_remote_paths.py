"""Files beside shards at addresses."""

import pytest

from fiber_cli.remote_paths import beside


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ("s3://bucket/set/{000..331}.tar", "s3://bucket/set/names.json"),
        ("https://host/set/*.tar?sig=a/b", "https://host/set/names.json?sig=a/b"),
        ("http://[::1]:8000/", "http://[::1]:8000/names.json"),
        ("file:///data/set/0.tar", "file:///data/set/names.json"),
        ("https://host/{a,b}/0.tar", None),
        ("https://host/*/0.tar", None),
        ("https://host", None),
        ("https://host/get?file=set/{0..3}.tar", None),
        ("pipe:cat /data/set/0.tar", None),
    ],
)
def test_what_lies_beside_shards_is_looked_for_elsewhere(shards, expected):
    assert beside(shards, "names.json") == expected
