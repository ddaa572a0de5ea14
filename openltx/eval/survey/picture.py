"""The pairwise matrix as a picture, in the manner of the paper's figure 15: how often the row beats the column."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from openltx.eval.survey.analysis import Verdict

CELL, TITLE, SMALL = 112, 16, 13
LOST, EVEN, WON = (214, 96, 77), (247, 247, 247), (67, 147, 195)
INK = (30, 30, 34)


def matrix_picture(title: str, verdict: Verdict) -> Image.Image:
    """A square for each pair of models, the best first; blue where the row wins, red where it loses."""
    models = verdict.order
    font, small = ImageFont.load_default(TITLE), ImageFont.load_default(SMALL)
    left = round(max(small.getlength(model) for model in models)) + 24
    top = 72
    page = Image.new("RGB", (left + CELL * len(models) + 24, top + CELL * len(models) + 24), "white")
    draw = ImageDraw.Draw(page)
    draw.text((12, 12), title, font=font, fill=INK)
    for row, a in enumerate(models):
        y = top + row * CELL
        draw.text((12, y + CELL / 2), a, font=small, fill=INK, anchor="lm")
        draw.text((left + row * CELL + CELL / 2, top - 12), _fit(a, small), font=small, fill=INK, anchor="mm")
        for column, b in enumerate(models):
            x = left + column * CELL
            estimate = None if a == b else verdict.matrix[a][b]
            fill = EVEN if estimate is None else _colour(estimate.value)
            draw.rectangle([x, y, x + CELL - 3, y + CELL - 3], fill=fill)
            if estimate is not None:
                middle = (x + CELL / 2, y + CELL / 2 - 10)
                draw.text(middle, f"{100 * estimate.value:.0f}%", font=font, fill=INK, anchor="mm")
                said = f"of {estimate.n}"
                draw.text((middle[0], middle[1] + 22), said, font=small, fill=INK, anchor="mm")
    return page


def _fit(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A name cut to a cell's width."""
    while font.getlength(name) > CELL - 8:
        name = name[:-1]
    return name


def _colour(rate: float) -> tuple[int, int, int]:
    end: Sequence[int] = WON if rate > 0.5 else LOST
    share = abs(rate - 0.5) * 2
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(EVEN, end, strict=True))
    return red, green, blue
