"""The declarations of formats: what does not belong together is refused when it is declared."""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Literal

import pytest
from postponed import LateTextsSettings

from fiber_cli.config.schema import schema_markdown
from fiber_cli.data import source as capabilities
from fiber_cli.data.source import BadSample, CaptionSource, PhraseSource, Source
from fiber_cli.data.sources import FORMATS, SettingsByKind, open_source, source_format, whole_formats
from fiber_cli.data.sources.format import Format
from fiber_cli.data.sources.visual_genome import VisualGenomeSettings
from fiber_cli.errors import DeclarationError, UserError
from fiber_cli.settings import SourceSettings, option


class Texts(CaptionSource):
    """Captions of nothing."""

    def __init__(self, path: str, length: int = 3):
        self.name, self.path, self.length = "texts", path, length

    def total(self):
        return self.length

    def key(self, i):
        return str(i)

    def captions(self, i):
        return (f"text {i}",)

    def image(self, i, at_least=0):
        raise BadSample("no image")


@dataclass(frozen=True)
class TextsSettings(SourceSettings):
    kind: Literal["texts"]
    path: str = option("A file.", path=True)
    length: int = option("How many.", 3, ge=1)


def test_what_belongs_together_is_a_format():
    texts = Format(kind="texts", settings=TextsSettings, source=Texts)
    assert texts.can_be_read_as(CaptionSource)
    assert not texts.can_be_read_as(PhraseSource)


def test_settings_of_another_kind_are_refused():
    with pytest.raises(TypeError, match=r"format 'tales': TextsSettings.kind is a Literal of \('texts',\), without it"):
        Format(kind="tales", settings=TextsSettings, source=Texts)


def test_a_kind_that_is_no_literal_is_refused():
    with pytest.raises(TypeError, match=r"format 'texts': SourceSettings.kind is a Literal of"):
        Format(kind="texts", settings=SourceSettings, source=Texts)


def test_a_setting_without_its_meaning_is_refused():
    @dataclass(frozen=True)
    class Bare(TextsSettings):
        kind: Literal["texts"]
        length: int = 3

    with pytest.raises(TypeError, match=r"format 'texts': length need an option\(\) that says what they mean"):
        Format(kind="texts", settings=Bare, source=Texts)


def test_a_setting_that_the_constructor_does_not_take_is_refused():
    @dataclass(frozen=True)
    class More(TextsSettings):
        kind: Literal["texts"]
        width: int = option("A width.", 3)
        depth: int = option("A depth.", 3)

    with pytest.raises(TypeError, match="format 'texts': Texts has no argument depth, width"):
        Format(kind="texts", settings=More, source=Texts)


def test_a_source_that_lacks_a_method_is_refused():
    class Half(Texts):
        image = CaptionSource.image

    class Nothing(CaptionSource):
        pass

    with pytest.raises(TypeError, match="format 'texts': Half lacks image"):
        Format(kind="texts", settings=TextsSettings, source=Half)
    with pytest.raises(TypeError, match="format 'texts': Nothing lacks captions, image, key, total"):
        Format(kind="texts", settings=TextsSettings, source=Nothing)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_table_and_the_declarations_agree(kind):
    data_format = source_format(kind)
    assert data_format.kind == kind
    assert SettingsByKind()[kind] is data_format.settings
    settings = {setting.name: setting for setting in dataclasses.fields(data_format.settings)}
    parameters = inspect.signature(data_format.source).parameters
    required = {name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    assert required <= settings.keys()
    for name, setting in settings.items():
        assert name == "kind" or setting.metadata["doc"].endswith("."), name


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_yields_something_that_tasks_ask_for(kind):
    asked_for = [
        capabilities.CaptionSource,
        capabilities.QuestionSource,
        capabilities.StatementSource,
        capabilities.CategorySource,
        capabilities.PhraseSource,
    ]
    data_format = source_format(kind)
    assert any(data_format.can_be_read_as(capability) for capability in asked_for)
    assert issubclass(data_format.source, Source)
    assert not inspect.isabstract(data_format.source)


def test_a_kind_that_is_not_in_the_table_is_a_key_error():
    with pytest.raises(KeyError):
        source_format("karpaty")
    with pytest.raises(KeyError):
        SettingsByKind()["karpaty"]
    assert len(SettingsByKind()) == len(FORMATS)


def test_a_table_that_names_another_format_is_refused(monkeypatch):
    monkeypatch.setitem(FORMATS, "texts", "karpathy:KARPATHY")
    with pytest.raises(TypeError, match="FORMATS names karpathy:KARPATHY for 'texts', which declares 'karpathy'"):
        source_format("texts")


def test_settings_become_arguments_of_the_source():
    settings = VisualGenomeSettings(kind="visual_genome", regions="r", images="i", weight=2.0)
    assert settings.arguments() == {"regions": "r", "images": "i"}


def test_a_source_is_opened_with_its_limit_of_pixels(tmp_path):
    scenes = source_format("scenes").settings(kind="scenes", count=3, image_size=64)
    source = open_source(scenes, max_pixels=77)
    assert (len(source), source.max_pixels) == (3, 77)
    assert open_source(scenes).max_pixels == capabilities.MAX_PIXELS
    missing = source_format("karpathy").settings(kind="karpathy", json=str(tmp_path / "k.json"), images=str(tmp_path))
    with pytest.raises(UserError, match=r"k.json: No such file"):
        open_source(missing)


@pytest.mark.parametrize("source", [dict, len, "Texts", None])
def test_what_is_no_source_is_a_format(source):
    with pytest.raises(DeclarationError, match=r"format 'texts': source: .* is no Source"):
        Format(kind="texts", settings=TextsSettings, source=source)


def test_an_argument_that_no_setting_gives_is_needed():
    class Coded(Texts):
        def __init__(self, path: str, encoding: str, length: int = 3, *, colour: str):
            super().__init__(path, length)

    with pytest.raises(DeclarationError, match="Coded needs the argument encoding, which no setting of TextsSettings"):
        Format(kind="texts", settings=TextsSettings, source=Coded)


def test_a_forgotten_kind_is_not_told():
    @dataclass(frozen=True)
    class Kindless(SourceSettings):
        path: str = option("A file.", path=True)

    with pytest.raises(DeclarationError, match=r"Kindless needs a field of its own, kind: Literal\['texts'\]"):
        Format(kind="texts", settings=Kindless, source=Texts)


def test_postponed_annotations_are_no_types():
    assert Format(kind="texts", settings=LateTextsSettings, source=Texts).settings is LateTextsSettings
    with pytest.raises(DeclarationError, match=r"LateTextsSettings.kind is a Literal of \('texts',\), without it"):
        Format(kind="tales", settings=LateTextsSettings, source=Texts)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("karpaty:KARPATHY", "there is no module fiber_cli.data.sources.karpaty"),
        ("karpathy:KARPATY", "fiber_cli.data.sources.karpathy has no KARPATY"),
        ("karpathy", "give module:DECLARATION"),
        ("karpathy:KarpathySettings", "KarpathySettings is no Format"),
    ],
)
def test_a_misprint_in_the_table_breaks_other_formats(monkeypatch, line, message):
    monkeypatch.setitem(FORMATS, "texts", line)
    with pytest.raises(DeclarationError, match=f"the line 'texts': '{line}' of FORMATS in .*: {message}"):
        source_format("texts")
    kinds = [each.kind for each in whole_formats()]
    assert kinds == [kind for kind in FORMATS if kind != "texts"]
    assert "karpathy" in schema_markdown()
