"""Checkpoints that are elsewhere, by a name on the hub or by an address, brought to this machine."""

import os
from pathlib import Path

from fiber_cli.checkpoints.hub_names import hub_name
from fiber_cli.downloads import is_address


def local(named: str | Path) -> Path:
    """The path on this machine of what a user calls a checkpoint or a run: that path itself where it is there or is
    none of a hub's names, else the folder that it was fetched to. `https://…/model.tar#sha256=…` is an archive with a
    checkpoint, `org/name` and `org/name@revision` are of the hub. Raises UserError for what cannot be fetched."""
    text = os.fspath(named)
    if is_address(text):
        from fiber_cli.checkpoints.archives import fetch_archive

        return fetch_archive(text)
    path = Path(named)
    name = hub_name(text)
    if name is None or text.startswith(".") or os.path.lexists(path):
        return path
    from fiber_cli.checkpoints.hub import fetch

    return fetch(name)
