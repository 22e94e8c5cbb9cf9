"""Pictures out of files, frames of videos among them, and videos out of pictures."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from PIL import Image

from fiber_cli.data.image_formats import VIDEO_SUFFIXES
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.errors import UserError, optional
from fiber_cli.inference.pictures import read_picture
from fiber_cli.outputs import Outputs, explained
from fiber_cli.printing import say

#: Frames a second of a video that does not say.
USUAL_RATE = Fraction(25)
#: Frames a second that a video may say; below and above they are taken as not said.
SLOWEST, FASTEST = Fraction(1, 60), Fraction(1000)
#: Pixels past the limit that a decoder is let have, because it counts whole blocks.
_MARGIN = 2**20
#: The largest limit that decoders take.
_MOST_PIXELS = 2**31 - 1
#: MPEG-4 counts time in at most 65,535 parts of a second.
MOST_TICKS = 1001


class Shot(NamedTuple):
    """A picture of a file, upright; of a video its frame number, from 0, and how many there are a second."""

    file: Path
    picture: Image.Image
    frame: int | None = None
    rate: Fraction | None = None

    @property
    def name(self) -> str:
        """The file, of a frame with its number."""
        return str(self.file) if self.frame is None else f"{self.file}#{self.frame}"

    def to_json(self) -> dict[str, Any]:
        """What a list of results says of it: image, frame (of a video), width and height in pixels."""
        described: dict[str, Any] = {"image": str(self.file)}
        if self.frame is not None:
            described["frame"] = self.frame
        return described | {"width": self.picture.width, "height": self.picture.height}


def is_video(file: Path) -> bool:
    """Whether a file is one, by its name."""
    return file.suffix.lower() in VIDEO_SUFFIXES


def shots(files: Sequence[Path], max_pixels: int = MAX_PIXELS) -> Iterator[Shot]:
    """All pictures and frames; what cannot be read is named on standard error, pictures with more than `max_pixels`
    among them."""
    for file in files:
        try:
            if is_video(file):
                yield from frames(file, max_pixels)
            else:
                yield Shot(file, read_picture(file, max_pixels))
        except UserError as error:
            say(f"left out: {error}")


def frames(file: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Shot]:
    """The frames of a video. UserError where it cannot be read, or at the frame from where it cannot be, and where
    frames have more than `max_pixels`, before they are decoded."""
    av = video_package()
    number = -1
    # Opening a file decodes some frames of it, too.
    bounds = {"max_pixels": str(min(max_pixels + _MARGIN, _MOST_PIXELS))}
    try:
        with av.open(str(file), options=bounds) as container:
            if not container.streams.video:
                raise UserError(f"{file}: holds no video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UserError(f"{file}: a video in a code that is not read here")
            _check_size(file, stream.codec_context, max_pixels)
            stream.codec_context.options = bounds
            stream.thread_type = "AUTO"
            rate = rate_of(file, stream.average_rate)
            for number, frame in enumerate(container.decode(stream)):
                _check_size(file, frame, max_pixels)
                picture = frame.to_image().rotate(frame.rotation, expand=True)
                yield Shot(file, picture, number, rate)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        where = "" if number < 0 else f" after frame {number}"
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{file}: not a readable video{where}: {reason}, or frames of more than {max_pixels:,} pixels (max_pixels)"
        ) from None


def _check_size(file: Path, sized: Any, max_pixels: int) -> None:
    """UserError for a stream or a frame with more than `max_pixels`."""
    if sized.width * sized.height > max_pixels:
        raise UserError(
            f"{file}: frames of {sized.width} x {sized.height}, more than {max_pixels:,} pixels (by max_pixels)"
        )


def rate_of(file: Path, said: Fraction | None) -> Fraction:
    """Frames a second of a video that says this."""
    if not said:
        return USUAL_RATE
    if SLOWEST <= said <= FASTEST:
        return said
    say(f"{file}: says {float(said):g} frames a second; {USUAL_RATE} are taken")
    return USUAL_RATE


def video_package() -> ModuleType:
    """PyAV; UserError where it is not installed."""
    return optional("av", "videos need PyAV, which is not installed; get it by `pip install 'fiber-vl[video]'`")


class VideoWriter:
    """A video without sound, in the usual codec of the file's kind. Sides are made even, which codecs want.

    rate: frames a second; size: (width, height) in pixels of all pictures. `close` gives the finished file its name,
    `drop` takes it away. UserError where it cannot be written.
    """

    def __init__(self, file: Path, rate: Fraction, size: tuple[int, int], outputs: Outputs | None = None):
        self.av = video_package()
        self.file = file
        self.outputs = outputs or Outputs()
        self._pending = self.outputs.begin(file)
        try:
            with explained(file):
                self._open(rate, size)
        except BaseException:
            self._pending.drop()
            raise

    def _open(self, rate: Fraction, size: tuple[int, int]) -> None:
        width, height = size
        self.size = width + width % 2, height + height % 2
        self.container = self.av.open(str(self._pending.temporary), "w")
        codec = self.container.default_video_codec
        self.stream = self.container.add_stream(codec, rate.limit_denominator(MOST_TICKS))
        self.stream.width, self.stream.height = self.size
        self.stream.pix_fmt = "yuv420p"
        self.stream.bit_rate = 8 * width * height

    def add(self, picture: Image.Image) -> None:
        frame = self.av.VideoFrame.from_image(picture.resize(self.size))
        with explained(self.file):
            self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        try:
            with explained(self.file):
                self.container.mux(self.stream.encode(None))
                self.container.close()
            self.outputs.publish(self._pending)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        with suppress(self.av.error.FFmpegError, OSError):  # what it still holds has no place on a full disk
            self.container.close()
        self._pending.drop()
