"""What a user types and a checkpoint cannot know: words that no text of its training had."""

from collections.abc import Iterable, Sequence

from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.checkpoints.words import unseen_words
from fiber_cli.errors import first_names
from fiber_cli.printing import say

#: How many words are named; a file of queries may have thousands.
_NAMED = 8
_THIS = "this checkpoint's training"


def say_unseen(models: Sequence[Loaded], texts: Iterable[str]) -> None:
    """A line on standard error for each model that has never seen some words of the texts; of several models the line
    names its own. Where the words of its training are not known nothing is said."""
    typed = list(texts)
    for model in models:
        unseen = unseen_words(model.path, typed)
        whose = _THIS if len(models) == 1 else f"the training of {model.path}"
        if unseen:
            say(never_seen(unseen, whose))


def never_seen(unseen: Sequence[str], whose: str = _THIS) -> str:
    """That words were never seen, in words."""
    if len(unseen) > _NAMED:
        return f"{len(unseen)} words never seen in {whose}: {first_names(list(unseen), _NAMED)}"
    return f"{', '.join(unseen)}: never seen in {whose}"
