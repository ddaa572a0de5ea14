"""The aesthetic ranker: it learns an order from pairs, asks what it does not know, and keeps every answer."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from openltx.cli import main
from openltx.data.aesthetic.features import WIDTH, Described, describe, describe_clips, views
from openltx.data.aesthetic.pairs import next_pair, share_a_label
from openltx.data.aesthetic.ranker import Ranker, accuracy, hold_out, score, train_ranker
from openltx.data.aesthetic.ratings import RATINGS, Rating, Ratings, rated_pairs
from openltx.data.manifest import read_manifest
from openltx.errors import DataError
from openltx.models.mobilenet import MobileNetV2


def known_order(clips: int = 200) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """Features of which a few directions decide, and pairs in that order."""
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(clips, 20))).float()
    worth = (features[:, 0] + 0.5 * features[:, 1]).numpy()
    drawn = [rng.permutation(clips)[:2] for _ in range(900)]
    return features, [(int(a), int(b)) if worth[a] > worth[b] else (int(b), int(a)) for a, b in drawn]


def test_the_ranker_orders_pairs_of_clips_it_has_not_learned_from() -> None:
    features, pairs = known_order()
    learned, measured = hold_out(pairs, range(200))
    seen = {clip for pair in learned for clip in pair}
    assert all(set(pair) - seen for pair in measured)
    ranker = train_ranker(features, learned, [20])
    found = accuracy(score(ranker, features), measured)
    assert found.share > 0.9
    assert found.low < found.share < found.high <= 1
    assert torch.equal(train_ranker(features, learned, [20])(features), ranker(features))


def test_what_spoils_a_clip_in_an_unknown_way_scores_less() -> None:
    """Good clips lie around a point; what was rated moved one feature up, what was not moves others, up or down."""
    rng = np.random.default_rng(0)
    good = rng.normal(size=(60, 40))
    rated, other = good.copy(), good.copy()
    rated[:, 0:4] += 4
    other[:, 8:12] -= 4
    features = torch.from_numpy(np.concatenate([good, rated, other])).float()
    ranker = train_ranker(features, [(i, 60 + i) for i in range(40)], [20, 20])
    assert accuracy(score(ranker, features), [(i, 120 + i) for i in range(40, 60)]).share > 0.9


def test_wilsons_interval() -> None:
    """Against the closed form for 8 of 10, from the textbooks."""
    found = accuracy(np.arange(20.0), [(i + 10, i) for i in range(8)] + [(0, 11), (1, 12)])
    assert (found.share, found.pairs) == (0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-3)


def test_a_ranker_survives_its_file_and_other_files_are_refused(tmp_path: Path) -> None:
    features, pairs = known_order()
    ranker = train_ranker(features, pairs, [15, 5])
    ranker.save(tmp_path / "r.safetensors", {"pairs": len(pairs)})
    assert np.array_equal(score(Ranker.load(tmp_path / "r.safetensors"), features), score(ranker, features))
    (tmp_path / "x.safetensors").write_bytes(b"no weights")
    for name in ("x.safetensors", "missing.safetensors"):
        with pytest.raises(DataError, match="cannot be read as an aesthetic ranker"):
            Ranker.load(tmp_path / name)
    with pytest.raises(DataError, match="no rated pair"):
        train_ranker(features, [], [20])


def test_pairs_share_a_label_and_the_least_certain_comes_first() -> None:
    allowed = share_a_label(np.array([[1, 2, 3], [3, 4, 5], [6, 7, 8], [5, 3, 9]]))
    assert np.argwhere(np.triu(allowed)).tolist() == [[0, 1], [0, 3], [1, 3]]
    scores, rng = np.array([0.0, 1.0, 5.0, 0.9]), np.random.default_rng(0)
    asked: list[frozenset[int]] = []
    for expected in ({1, 3}, {0, 3}, {0, 1}):
        pair = next_pair(allowed, scores, asked, rng)
        assert pair is not None
        assert set(pair) == expected
        asked.append(frozenset(pair))
    assert next_pair(allowed, scores, asked, rng) is None


def test_answers_are_kept_in_order_and_the_last_of_a_person_is_taken_back(tmp_path: Path) -> None:
    ratings = Ratings(tmp_path / RATINGS)
    given = [Rating("a", "b", "a", "ada"), Rating("b", "c", None, "bob"), Rating("c", "a", "a", "ada")]
    for rating in given:
        ratings.add(rating)
    assert Ratings(tmp_path / RATINGS).all() == given
    assert ratings.undo("bob") == given[1]
    assert ratings.undo("bob") is None
    assert rated_pairs(ratings.all(), {"a": 0, "b": 1, "c": 2}) == [(0, 1), (0, 2)]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> MobileNetV2:
    """The classifier with random weights."""
    made = MobileNetV2()
    monkeypatch.setattr("openltx.data.aesthetic.features.classifier", lambda: made)
    monkeypatch.setattr("openltx.data.prepare.scoring.classifier", lambda: made)
    return made


def test_a_clip_is_described_once(network: MobileNetV2, clip_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    clips = read_manifest(clip_folder)[:3]
    first = describe_clips(clip_folder, clips[:2], tmp_path / "f.safetensors")
    told: list[tuple[int, int]] = []
    both = describe_clips(clip_folder, clips, tmp_path / "f.safetensors", lambda *done: told.append(done))
    assert told == [(2, 3), (3, 3)]
    assert torch.equal(both.features[:2], first.features)
    assert both.features.shape == (3, WIDTH)
    assert both.labels.shape == (3, 3)
    frames = np.zeros((5, 300, 260, 3), np.uint8)
    features, labels = describe(network, views(frames))
    assert (features.shape, len(set(labels))) == ((WIDTH,), 3)


@pytest.fixture
def page(clip_folder: Path, tmp_path: Path) -> Iterator[http.client.HTTPConnection]:
    pytest.importorskip("fastapi")
    import uvicorn

    from openltx.data.aesthetic.page import Session, create_app

    paths = [clip.path for clip in read_manifest(clip_folder)]
    features = torch.randn(len(paths), 30)
    described = Described(paths, features, torch.tensor([[1, 2, n] for n in range(len(paths))]))
    app = create_app(Session(clip_folder, described, Ratings(tmp_path / RATINGS), goal=28, parts=[30]))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    yield connection
    connection.close()
    server.should_exit = True
    thread.join()


def test_the_page_asks_learns_takes_back_and_ends(page: http.client.HTTPConnection, tmp_path: Path) -> None:
    def ask(method: str, path: str, body: object = None) -> tuple[int, bytes]:
        page.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
        answer = page.getresponse()
        return answer.status, answer.read()

    assert b"ArrowLeft" in ask("GET", "/")[1]
    question = json.loads(ask("GET", "/next?rater=ada")[1])
    assert ask("GET", f"/clips/{question['left']}.mp4")[1][4:8] == b"ftyp"
    assert ask("GET", "/clips/99.mp4")[0] == 404
    assert ask("POST", "/answer", {"left": 0, "right": 99, "better": "left"})[0] == 422
    first, asked = question, []
    while question["left"] is not None:
        asked.append(frozenset((question["left"], question["right"])))
        side = "left" if question["left"] > question["right"] else "right"
        answer = {"left": question["left"], "right": question["right"], "better": side, "rater": "ada"}
        question = json.loads(ask("POST", "/answer", answer)[1])
        if len(asked) == 1:
            again = json.loads(ask("POST", "/undo?rater=ada", {})[1])
            assert (again["left"], again["right"], again["done"]) == (first["left"], first["right"], 0)
            question = json.loads(ask("POST", "/answer", answer)[1])
    assert len(asked) == len(set(asked)) == 28
    assert question["done"] == 28
    assert question["learned_from"] >= 20
    kept = Ratings(tmp_path / RATINGS).all()
    assert len(kept) == 28
    assert all(rating.better == max(rating.left, rating.right) for rating in kept)


def test_the_command_serves_the_page(
    network: MobileNetV2, clip_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("cv2")
    served: list[tuple[str, int]] = []
    monkeypatch.setattr(uvicorn, "run", lambda _, host, port, **__: served.append((host, port)))
    assert main(["data", "rate", str(clip_folder), "--rater", "ada", "--port", "8011"]) == 0
    assert served == [("127.0.0.1", 8011)]
    assert "http://127.0.0.1:8011/?rater=ada" in capsys.readouterr().out


def test_a_ranker_is_trained_and_scores_clips_of_a_new_set(
    network: MobileNetV2, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scenedetect")
    from benchmarks.data_videos import encode, picture

    assert main(["data", "rank", str(tmp_path), "--out", str(tmp_path / "r.safetensors")]) == 2
    assert "Rate some pairs first" in capsys.readouterr().err
    paths = sorted(clip.path for clip in read_manifest(clip_folder))
    ratings = Ratings(clip_folder / RATINGS)
    for left, right in pairwise(paths):
        ratings.add(Rating(left, right, right, "me"))
    assert main(["data", "rank", str(clip_folder), "--out", str(tmp_path / "r.safetensors")]) == 0
    assert "learned from 7 pairs" in capsys.readouterr().out
    encode(tmp_path / "a.mp4", picture(20, seed=1))
    (tmp_path / "c.json").write_text('{"cut": {"frames": 17, "min_frames": 17}, "sharpness": {"max_blur": 1.0}}')
    command = ["data", "prepare", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "set"), "--bucket", "96x64x17"]
    command += ["--config", str(tmp_path / "c.json"), "--workers", "1", "--ranker", str(tmp_path / "r.safetensors")]
    assert main([*command, "--min-score", "-99"]) == 0
    record = json.loads((tmp_path / "set" / "records.jsonl").read_text())
    assert len(record["measures"]["aesthetic"]["labels"]) == 3
    assert main([*command, "--min-score", "99"]) == 2
    assert "aesthetic score" in (tmp_path / "set" / "records.jsonl").read_text()
