"""Scenes some of which cannot be read."""

from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.scenes import ScenesSource


class HoleScenes(ScenesSource):
    """Scenes of which number 2 cannot be read."""

    def image(self, i, at_least=0):
        if i == 2:
            raise BadSample("damaged")
        return super().image(i, at_least)

    def images(self, i, at_least=0):
        if i == 2:
            raise BadSample("damaged")
        return super().images(i, at_least)


class BrokenScenes(ScenesSource):
    """Scenes none of which can be read."""

    def image(self, i, at_least=0):
        raise BadSample("damaged")
