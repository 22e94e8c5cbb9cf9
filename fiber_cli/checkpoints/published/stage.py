"""The two stages of published checkpoints, each known by the names that its weights have."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from torch import Tensor

from fiber_cli.checkpoints.published import coarse, fine
from fiber_cli.checkpoints.published.names import rename
from fiber_cli.model.config import FiberConfig

StageName = Literal["coarse", "fine"]
_State = Mapping[str, Tensor]


class Stage(NamedTuple):
    """wrapper: under which name the published loader looks for the state dict in a file. landmark: a key that every
    model of the stage has. without_place: published template → why it has no place in our weights. discarded: what of
    that is not written on the way out either. unread, from_published, to_published: see `coarse`."""

    wrapper: str
    landmark: str
    without_place: Mapping[str, str]
    discarded: tuple[str, ...]
    unread: Callable[[FiberConfig, Collection[str]], list[str]]
    from_published: Callable[[_State, FiberConfig, Collection[str]], dict[str, Tensor]]
    to_published: Callable[[_State, FiberConfig], dict[str, Tensor]]

    def reasons(self, keys: Iterable[str], config: FiberConfig, names: Collection[str]) -> dict[str, str]:
        """Those of the published keys that have no place in our weights, each with the reason, where ours has the
        parameters `names`."""
        placeless = {*self.unread(config, names), *self.discarded}
        reasons = {}
        for key in keys:
            if key in placeless:
                reason = rename(key, self.without_place)
                assert reason is not None, f"{key}: WITHOUT_PLACE has no reason for it"
                reasons[key] = reason
        return reasons


STAGES: Mapping[StageName, Stage] = {
    "coarse": Stage(
        "state_dict",
        coarse.LANDMARK,
        coarse.WITHOUT_PLACE,
        coarse.QUEUE,
        coarse.unread,
        coarse.from_published,
        coarse.to_published,
    ),
    "fine": Stage("model", fine.LANDMARK, fine.WITHOUT_PLACE, (), fine.unread, fine.from_published, fine.to_published),
}
