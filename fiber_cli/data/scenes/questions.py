"""Questions about the built-in scenes and their answers."""

import random

from fiber_cli.data.records import ANNOTATORS, Question
from fiber_cli.data.scenes.claims import fair_choice, relation_claim
from fiber_cli.data.scenes.facts import coloured_shapes, count_values, definite, distinguishing, position
from fiber_cli.data.scenes.layout import Scene
from fiber_cli.data.scenes.vocabulary import ATTRIBUTES, THINGS, VALUES, noun_phrase, plural

QUESTION_TYPES = (*ATTRIBUTES, "total", "count", "exists", "relation", "position")
_YES_NO = ("no", "yes")
_COUNTS = ("0", "1", "2", "3", "4")


def answers() -> list[str]:
    """Every answer to a scene's questions."""
    values: list[str] = []
    for values_of_attribute in VALUES.values():
        values.extend(values_of_attribute)
    corners = ["top left", "top right", "bottom left", "bottom right"]
    return ["yes", "no", *_COUNTS, *values, *corners]


def questions(scene: Scene) -> tuple[Question, ...]:
    """At most one question of each type, answered in one or two words, alike by all annotators. Types: size, texture,
    colour, shape, total, count, exists, relation and position."""
    questionnaire = _Questionnaire(scene)
    for attribute in ATTRIBUTES:
        questionnaire.ask_attribute(attribute)
    questionnaire.ask_total()
    questionnaire.ask_count()
    questionnaire.ask_existence()
    questionnaire.ask_relation()
    questionnaire.ask_position()
    return tuple(questionnaire.questions)


class _Questionnaire:
    """The questions about a scene, in the order in which they are asked."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.rng = random.Random(f"{scene.key}/questions")
        self.questions: list[Question] = []

    def _ask(self, question_type: str, answer: str, *forms: str) -> None:
        """Add the question in one of the forms."""
        text = self.rng.choice(forms)
        identifier = f"{self.scene.key}-{len(self.questions)}"
        question = Question(text, (answer,) * ANNOTATORS, identifier, _answer_type(answer), question_type)
        self.questions.append(question)

    def _any_object(self) -> int:
        return self.rng.randrange(len(self.scene.objects))

    def ask_attribute(self, attribute: str) -> None:
        i = self._any_object()
        others = distinguishing(self.rng, self.scene, i, without=attribute)
        if others is None:
            return
        the = noun_phrase(self.rng, others, "the")
        answer = self.scene.objects[i].attributes[attribute]
        if attribute == "size":
            self._ask(attribute, answer, f"is {the} small or large?", f"is {the} large or small?")
        else:
            self._ask(attribute, answer, f"what {attribute} is {the}?", f"which {attribute} does {the} have?")

    def ask_total(self) -> None:
        forms = [f"how many {thing}s are there?" for thing in THINGS]
        self._ask("total", str(len(self.scene.objects)), *forms)

    def ask_count(self) -> None:
        """None, one or two of something, where there is something of each number."""
        attribute = self.rng.choice(("colour", "shape"))
        values_by_count: tuple[list[str], list[str], list[str]] = ([], [], [])
        for value, count in count_values([self.scene], attribute).items():
            if count < len(values_by_count):
                values_by_count[count].append(value)
        if not all(values_by_count):
            return
        number = self.rng.randrange(len(values_by_count))
        things = plural(self.rng, attribute, self.rng.choice(values_by_count[number]))
        self._ask("count", str(number), f"how many {things} are there?", f"how many {things} do you see?")

    def ask_existence(self) -> None:
        choice = fair_choice(self.rng, *coloured_shapes(self.scene))
        if choice is None:
            return
        attributes, label = choice
        thing = noun_phrase(self.rng, attributes, "a")
        self._ask("exists", _YES_NO[label], f"is there {thing}?", f"do you see {thing}?", f"can you see {thing}?")

    def ask_relation(self) -> None:
        claim = relation_claim(self.rng, self.scene)
        if claim is not None:
            self._ask("relation", _YES_NO[claim.label], f"is {claim.subject} {claim.relation} {claim.reference}?")

    def ask_position(self) -> None:
        i = self._any_object()
        down, across = position(self.scene, i)
        if down and across:
            the = definite(self.rng, self.scene, i)
            self._ask("position", f"{down} {across}", f"where is {the}?", f"in which corner is {the}?")


def _answer_type(answer: str) -> str:
    if answer in _YES_NO:
        return "yes/no"
    return "number" if answer in _COUNTS else "other"
