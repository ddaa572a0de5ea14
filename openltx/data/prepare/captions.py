"""What clips are said to show: the cleaning of a captioner's text, and what a set's captions are like.

Captioners have habits: they begin with "The video shows", wrap their text in quotes or markdown, stop within a sentence
when their tokens run out, repeat themselves, or decline. A model learns all of that if it is left in.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from openltx.data.prepare.records import Record

_THING = r"(?:video|clip|footage|scene|image|picture|frame|sequence|shot)s?"
_VERB = (
    r"(?:shows?|showcases?|depicts?|features?|captures?|presents?|displays?|portrays?|illustrates?|is of|"
    r"(?:opens?|begins?|starts?) with)"
)
_OPENING = re.compile(
    rf"^(?:(?:in|throughout) (?:this|the) (?:\w+ )?{_THING}, |(?:this|the|these) (?:\w+ )?{_THING} {_VERB} )(?:us )?",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"^(?:assistant|caption|description|answer)\s*:\s*", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i can(?:not|'t)|as an ai\b|as a language model|no (?:video|image)s? "
    r"(?:was|were|is|are) (?:provided|given))",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_COMMON = (
    "a an and are as at be been but by can for from has have he her his i in into is it its of on or she so that the "
    "their them then there they this to was we were which while who with"
)
_STOPWORDS = frozenset(_COMMON.split())
WORD_BINS = (0, 1, 10, 20, 30, 40, 50, 75, 100, 125, 150, 200, 300)
SECOND_BINS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
MOST_WORDS = 200


def clean(text: str, max_words: int = 200) -> str:
    """The caption in one line without its captioner's habits; empty if it declined or nothing is left."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[*_#`]+|^\s*[-•]\s+", "", text, flags=re.MULTILINE)
    text = " ".join(text.split()).strip("\"'“”‘’ ")
    text = _SPEAKER.sub("", text).strip("\"'“”‘’ ")
    if _REFUSAL.search(text[:160]):
        return ""
    for _ in range(2):
        text = _OPENING.sub("", text)
    sentences = [sentence for sentence, _ in groupby(_SENTENCE.split(text))] if text else []
    if len(sentences) > 1 and sentences[-1][-1:] not in ".!?":
        sentences.pop()
    sentences = list(dict.fromkeys(sentences))
    kept: list[str] = []
    for sentence in sentences:
        if kept and len(" ".join([*kept, sentence]).split()) > max_words:
            break
        kept.append(sentence)
    text = " ".join(" ".join(kept).split()[:max_words])
    return text[:1].upper() + text[1:]


def statistics(records: Sequence[Record]) -> dict[str, Any]:
    """Of captions and durations: histograms (paper Fig. 12) and how often each word is used (Fig. 13).

    A histogram is its bins' lower edges and how many clips are in each; the last bin has no end.
    """
    words = [record.caption.lower().split() for record in records]
    used = Counter(re.sub(r"[^\w'-]", "", word) for caption in words for word in caption)
    common = sorted(
        ((word, count) for word, count in used.items() if word and word not in _STOPWORDS), key=lambda w: (-w[1], w[0])
    )
    return {
        "clips": len(records),
        "seconds": round(sum(record.frames / record.fps for record in records), 3),
        "captioned": sum(bool(caption) for caption in words),
        "words": histogram([len(caption) for caption in words], WORD_BINS),
        "durations": histogram([record.frames / record.fps for record in records], SECOND_BINS),
        "word_cloud": dict(common[:MOST_WORDS]),
    }


def histogram(values: Sequence[float | int], edges: Sequence[float | int]) -> dict[str, list[Any]]:
    """How many values are in each bin."""
    counts, _ = np.histogram(values, [*edges, np.inf])
    return {"from": list(edges), "count": counts.tolist()}
