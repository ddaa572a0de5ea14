"""Many videos on one page: a row of evenly spaced frames for each, its caption above."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 16  # around the page
_GAP = 4  # between frames
_ROW_GAP = 18  # between a row of frames and the next caption
_FONT_SIZE = 14
_LINE = 19  # from one line of a caption to the next
_BACKGROUND, _INK = (250, 250, 250), (32, 32, 36)


def contact_sheet(
    rows: Sequence[tuple[str, UInt8[np.ndarray, "_ _ _ 3"]]], columns: int = 8, cell: int = 128
) -> Image.Image:
    """One page of ``(caption, frames)`` rows, frames ``F H W 3`` scaled to fit ``cell`` pixels.

    Each row shows at most ``columns`` frames, the first and the last always among them.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    width = columns * cell + (columns - 1) * _GAP
    strips = [(_wrap(caption, font, width), _strip(frames, columns, cell)) for caption, frames in rows]
    height = sum(len(lines) * _LINE + strip.height for lines, strip in strips) + _ROW_GAP * max(len(strips) - 1, 0)
    page = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    y = _MARGIN
    for lines, strip in strips:
        for line in lines:
            draw.text((_MARGIN, y), line, font=font, fill=_INK)
            y += _LINE
        page.paste(strip, (_MARGIN, y))
        y += strip.height + _ROW_GAP
    return page


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """At most ``count`` of the indices 0 ... ``num_frames`` - 1, evenly spaced, the first and the last included."""
    return np.linspace(0, num_frames - 1, min(num_frames, count)).round().astype(int).tolist()


class ChosenFrames:
    """Keeps the frames of some numbers from all that pass."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers, self._passed = set(numbers), 0
        self.frames: list[UInt8[np.ndarray, "H W 3"]] = []

    def see(self, frames: UInt8[np.ndarray, "F H W 3"]) -> UInt8[np.ndarray, "F H W 3"]:
        """The frames themselves, which come next in the video."""
        self.frames += [frame for number, frame in enumerate(frames, self._passed) if number in self._numbers]
        self._passed += len(frames)
        return frames


def _strip(frames: UInt8[np.ndarray, "F H W 3"], columns: int, cell: int) -> Image.Image:
    scale = cell / max(frames.shape[1:3])
    height, width = (max(round(side * scale), 1) for side in frames.shape[1:3])
    resample = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST  # show small frames as they are
    strip = Image.new("RGB", (columns * (cell + _GAP) - _GAP, height), _BACKGROUND)
    for column, index in enumerate(evenly_spaced(len(frames), columns)):
        strip.paste(Image.fromarray(frames[index]).resize((width, height), resample), (column * (cell + _GAP), 0))
    return strip


def _wrap(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in caption.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
