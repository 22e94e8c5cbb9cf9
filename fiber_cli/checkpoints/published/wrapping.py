"""What stands around a published model in a state dict: prefixes, and copies of it."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from fiber_cli.errors import UserError, first_names

#: Words in the prefixes of copies, which are not the weights that the published loaders read.
_OF_COPIES = ("ema", "copy", "momentum", "teacher", "average")
COPY = "a copy of the model, which the published loaders do not read"
BESIDE = "beside the model in the file, not of it"


class Entries(NamedTuple):
    """state: the model's own entries under their published names. left_out: key of the file → why it is none."""

    state: dict[str, Tensor]
    left_out: dict[str, str]


def own_entries(state: Mapping[str, Tensor], landmark: str) -> Entries:
    """The entries of the published model without the prefix of whatever it was a part of when it was saved, such as
    `model.` or `module.`. landmark: the published name of an entry that every such model has; where the file has none
    the entries are left as they are. UserError where several models lie in the file and none is plainly the one."""
    prefixes = []
    for key in state:
        prefix = key.removesuffix(landmark)
        if key.endswith(landmark) and (not prefix or prefix.endswith(".")):
            prefixes.append(prefix)
    if not prefixes:
        return Entries(dict(state), {})
    model = _prefix_of_model(prefixes)
    copies = tuple(prefix for prefix in prefixes if prefix != model)
    entries = Entries({}, {})
    for key, value in state.items():
        if key.startswith(copies):
            entries.left_out[key] = COPY
        elif key.startswith(model):
            entries.state[key.removeprefix(model)] = value
        else:
            entries.left_out[key] = BESIDE
    return entries


def _prefix_of_model(prefixes: list[str]) -> str:
    originals = [prefix for prefix in prefixes if not any(word in prefix.casefold() for word in _OF_COPIES)]
    candidates = sorted(originals or prefixes, key=len)
    shortest = candidates[0]
    others = [prefix for prefix in candidates if not prefix.startswith(shortest)]
    if others:
        raise UserError(
            f"the file holds several models, below {first_names([shortest, *others])}: save the state dict of one alone"
        )
    return shortest
