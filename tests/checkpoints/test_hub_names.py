"""Names of the hub are told from paths, and its cached folders from others."""

from pathlib import Path

import pytest

from fiber_cli.checkpoints.hub_names import HubName, hub_name, snapshot

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/name", HubName("org/name")),
        ("my-org/Name_1.0", HubName("my-org/Name_1.0")),
        ("org/name@v1.0", HubName("org/name", "v1.0")),
        ("org/name@refs/pr/1", HubName("org/name", "refs/pr/1")),
        ("runs/tiny", HubName("runs/tiny")),
    ],
)
def test_a_name_of_the_hub_is_not_known_as_one(text, name):
    assert hub_name(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "a/b/c",
        "/org/name",
        "./org/name",
        "../name",
        "org/",
        "org/na me",
        "org/name@",
        "or--g/name",
        "org/a..b",
        "-org/name",
        "org/name-",
        "org/name.git",
        "örg/name",
        f"org/{'n' * 96}",
        "org/name\n",
        "C:\\org\\name",
        "~/name",
    ],
)
def test_a_path_is_looked_for_on_the_hub(text):
    assert hub_name(text) is None


def test_a_folder_of_the_cache_does_not_say_what_it_is():
    cached = Path(f"/cache/hub/models--my-org--name--x/snapshots/{COMMIT}")
    assert snapshot(cached) == HubName("my-org/name--x", COMMIT)
    for path in (cached.parent, cached / "tokenizer", Path(f"models--org/snapshots/{COMMIT}"), Path("runs/tiny")):
        assert snapshot(path) is None
