"""The page of ``openltx data rate``: two clips side by side, and which is better? For people on this machine.

Every answer is kept before the next pair comes. After every few answers the ranker learns again from all of them, and
asks about what it is least sure of.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel

from openltx.data.aesthetic.features import PARTS, Described
from openltx.data.aesthetic.pairs import next_pair, share_a_label
from openltx.data.aesthetic.ranker import score, train_ranker
from openltx.data.aesthetic.ratings import Rating, Ratings, rated_pairs

LEARN_EVERY, LEARN_FROM = 10, 20
PAGE = Path(__file__).with_name("page.html")


class Answer(BaseModel):
    """What the page sends."""

    left: int
    right: int
    better: Literal["left", "right", "tie"]
    rater: str = "me"


class Question(BaseModel):
    """What the page shows: the numbers of two clips (None: no pair is left), and how far the person is."""

    left: int | None
    right: int | None
    done: int
    goal: int
    learned_from: int


@dataclass
class Session:
    """A set that is being rated."""

    folder: Path
    described: Described
    ratings: Ratings
    goal: int
    parts: Sequence[int] = PARTS
    scores: np.ndarray | None = None
    learned_from: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.allowed = share_a_label(self.described.labels.numpy())
        self.places = {path: place for place, path in enumerate(self.described.paths)}

    def question(self, rater: str) -> Question:
        """The next pair."""
        with self.lock:
            answers = self.ratings.all()
            if len(answers) >= LEARN_FROM and len(answers) - self.learned_from >= LEARN_EVERY:
                self._learn(answers)
            asked = {frozenset(pair) for pair in self._pairs_of(answers)}
            pair = next_pair(self.allowed, self.scores, asked, np.random.default_rng(len(answers)))
            return self._shown(pair, answers, rater)

    def answer(self, answer: Answer) -> None:
        """Keep an answer."""
        left, right = self.described.paths[answer.left], self.described.paths[answer.right]
        better = {"left": left, "right": right, "tie": None}[answer.better]
        self.ratings.add(Rating(left, right, better, answer.rater))

    def undo(self, rater: str) -> Question:
        """Take the last answer back, and ask the same again; without one, the next pair."""
        taken_back = self.ratings.undo(rater)
        if taken_back is None:
            return self.question(rater)
        pair = (self.places[taken_back.left], self.places[taken_back.right])
        return self._shown(pair, self.ratings.all(), rater)

    def _learn(self, answers: Sequence[Rating]) -> None:
        pairs = rated_pairs(answers, self.places)
        if pairs:
            self.scores = score(train_ranker(self.described.features, pairs, self.parts), self.described.features)
        self.learned_from = len(answers)

    def _pairs_of(self, answers: Sequence[Rating]) -> list[tuple[int, int]]:
        known = (a for a in answers if a.left in self.places and a.right in self.places)
        return [(self.places[a.left], self.places[a.right]) for a in known]

    def _shown(self, pair: tuple[int, int] | None, answers: Sequence[Rating], rater: str) -> Question:
        left, right = pair or (None, None)
        done = sum(answer.rater == rater for answer in answers)
        return Question(left=left, right=right, done=done, goal=self.goal, learned_from=self.learned_from)


def create_app(session: Session) -> FastAPI:
    """The page and what it asks for."""
    app = FastAPI(title="openltx data rate", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE, media_type="text/html")

    @app.get("/next")
    def following(rater: str = "me") -> Question:
        return session.question(rater)

    @app.post("/answer")
    def answer(given: Answer) -> Question:
        if not {given.left, given.right} <= set(range(len(session.described.paths))) or given.left == given.right:
            raise HTTPException(422, "There are no such two clips.")
        session.answer(given)
        return session.question(given.rater)

    @app.post("/undo")
    def undo(rater: str = "me") -> Question:
        return session.undo(rater)

    @app.get("/clips/{number}.mp4")
    def clip(number: int) -> FileResponse:
        if not 0 <= number < len(session.described.paths):
            raise HTTPException(404, "There is no such clip.")
        return FileResponse(session.folder / session.described.paths[number], media_type="video/mp4")

    return app
