"""Published names to ours by tables of templates, strict both ways.

A table is: published template -> ours. In braces stands what both names have in common, in the same order: one of
several words, as in `{text|image}`, or one of `FIELDS`.
"""

import functools
import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fiber_cli.errors import UserError, first_names

#: {s} stage, {b} block, {l} text layer, {p} parameter, {q} projection of an attention
FIELDS = {"s": r"\d+", "b": r"\d+", "l": r"\d+", "p": "weight|bias", "q": "query|key|value"}
_BRACES = re.compile(r"{(.+?)}")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    def group(match: re.Match[str]) -> str:
        words = match[1]
        return f"({FIELDS.get(words, words)})"

    return re.compile(_BRACES.sub(group, template.replace(".", r"\.")))


def rename(name: str, table: Mapping[str, str]) -> str | None:
    """The name's counterpart in a table of templates, or None."""
    for template, counterpart in table.items():
        match = _pattern(template).fullmatch(name)
        if match is not None:
            return _BRACES.sub("{}", counterpart).format(*match.groups())
    return None


def below(table: Mapping[str, str], *, published: str, ours: str) -> dict[str, str]:
    """The table with a prefix before every published name and one before every name of ours."""
    return {published + theirs: ours + counterpart for theirs, counterpart in table.items()}


def to_our_names(
    state: Mapping[str, Tensor],
    table: Mapping[str, str],
    *,
    names: Collection[str],
    ignored: Collection[str],
    check: str,
) -> dict[str, Tensor]:
    """A published state dict under our names, float32, without the keys `ignored`.

    Raises UserError where keys and `names`, the parameters of our model, do not match one to one; it advises to look
    at `check`.
    """
    wide = [key for key, value in state.items() if value.dtype == torch.float64 and key not in ignored]
    if wide:
        raise UserError(f"weights of more than float32, which would have to be cut: {first_names(wide)}; save float32")
    renamed = {key: rename(key, table) for key in state if key not in ignored}
    unknown = sorted(key for key, name in renamed.items() if name not in names)
    missing = sorted(set(names).difference(renamed.values()))
    if unknown or missing:
        raise UserError(
            "this is not a published checkpoint of the model that was asked for: "
            f"keys without a place in it: {first_names(unknown)}; "
            f"parameters that it lacks: {first_names(missing)}; check {check}"
        )
    return {name: state[key].float() for key, name in renamed.items() if name is not None}


def to_published_names(weights: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    """Our weights under the published names; UserError where some have none."""
    inverse = {ours: theirs for theirs, ours in table.items()}
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, value in weights.items():
        key = rename(name, inverse)
        if key is None:
            unknown.append(name)
        else:
            renamed[key] = value
    if unknown:
        raise UserError(f"weights without a published name: {first_names(unknown)}")
    return renamed
