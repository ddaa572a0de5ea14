"""The page of captioned frames."""

import numpy as np

from openltx.media import contact_sheet
from openltx.media.contact_sheet import evenly_spaced


def grey_clip(num_frames, height, width):
    """Frame k is a flat grey of level 10 + k."""
    levels = np.arange(num_frames, dtype=np.uint8) + 10
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def test_frames_are_evenly_spaced_from_the_first_to_the_last():
    assert evenly_spaced(49, 8) == [0, 7, 14, 21, 27, 34, 41, 48]
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(1, 8) == [0]


def test_every_row_shows_its_frames_in_order():
    page = np.asarray(
        contact_sheet([("first", grey_clip(25, 32, 32)), ("second", grey_clip(2, 16, 32))], columns=3, cell=32)
    )
    flat = [level for level in range(10, 35) if ((page == level).all(-1)).sum() >= 32 * 16]
    assert flat == [10, 11, 22, 34]
    assert [(page == level).all(-1).sum() for level in (22, 34)] == [32 * 32] * 2


def test_captions_are_drawn_and_long_ones_take_more_lines():
    clip = grey_clip(2, 32, 32)
    none, short, long = (contact_sheet([(text, clip)], columns=2, cell=64) for text in ("", "a ball", "a ball " * 20))
    assert none.height < short.height < long.height
    assert none.width == short.width == long.width
    assert (np.asarray(short)[: short.height - none.height + 16] < 100).any()


def test_a_page_without_rows_is_still_a_page():
    assert contact_sheet([]).width > 0
