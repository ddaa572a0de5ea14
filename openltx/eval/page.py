"""A report as one HTML file with the videos inside it: nothing beside it, nothing from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from openltx.eval.suite import Score
from openltx.eval.videos import Entry

_TYPES = {".mp4": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska"}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 80rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #8884 }
section { margin: 2rem 0; border-top: 1px solid #8888 } .row { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; flex: 1 1 16rem; max-width: 40rem } video, img { width: 100%; background: #000 }
figcaption { font-size: .8rem; overflow-wrap: anywhere } button { font: inherit; padding: .3rem 1rem }
"""
_SCRIPT = """
const videos = [...document.querySelectorAll("video")];
document.getElementById("play").onclick = () => {
  const go = videos.some(video => video.paused);
  for (const video of videos) { video.currentTime = 0; go ? video.play() : video.pause(); }
};
"""


def report_page(
    title: str,
    table: str,
    models: Mapping[str, tuple[Sequence[Entry], Sequence[Score]]],
    names: Sequence[str],
) -> str:
    """The page: a markdown ``table`` set in HTML, then for each of ``names`` the videos of all models side by side."""
    rows = "".join(_row(name, models) for name in names)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>{markdown_to_html(table)}"
        f'<button id="play">Play all, or pause</button>{rows}<script>{_SCRIPT}</script></body></html>\n'
    )


def markdown_to_html(text: str) -> str:
    """What the reports here are made of: tables and paragraphs."""
    return "".join(_table(part) if part.startswith("|") else _paragraph(part) for part in text.strip().split("\n\n"))


def _paragraph(part: str) -> str:
    return f"<p>{'<br>'.join(escape(line) for line in part.splitlines())}</p>"


def _table(part: str) -> str:
    header, _, *rows = [line.strip("|").split("|") for line in part.splitlines()]
    head = "".join(f"<th>{escape(cell.strip())}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell.strip())}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _row(name: str, models: Mapping[str, tuple[Sequence[Entry], Sequence[Score]]]) -> str:
    figures, prompt = [], None
    for model, (entries, scores) in models.items():
        index = next(i for i, entry in enumerate(entries) if entry.name == name)
        prompt = prompt or entries[index].prompt
        figures.append(_figure(model, entries[index], index, scores))
    title = name if prompt is None else f"{name}: {prompt}"
    return f'<section><h2>{escape(title)}</h2><div class="row">{"".join(figures)}</div></section>'


def _figure(model: str, entry: Entry, index: int, scores: Sequence[Score]) -> str:
    values = [f"{s.name} {value:.4g}" for s in scores if s.values and (value := s.values[index]) is not None]
    caption = f"<b>{escape(model)}</b><br>{escape(', '.join(values))}"
    return f"<figure>{_player(entry.path)}<figcaption>{caption}</figcaption></figure>"


def _player(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    suffix = path.suffix.lower()
    if suffix in (".gif", ".webp"):
        return f'<img alt="" src="data:image/{suffix[1:]};base64,{data}">'
    kind = _TYPES.get(suffix, "video/mp4")
    return f'<video controls loop muted playsinline preload="metadata" src="data:{kind};base64,{data}"></video>'
