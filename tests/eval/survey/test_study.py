"""What raters are asked, what they get to see, and what becomes of it."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openltx.cli import main
from openltx.errors import DataError, RequestError
from openltx.eval.survey.answers import Answer, Answers
from openltx.eval.survey.study import ANSWERS, CLIPS, STUDY, Study, break_video, create_study, open_study
from openltx.eval.videos import Entry, Prompt, read_videos
from openltx.media.io import read_metadata, read_video, write_video

Make = Callable[..., tuple[Path, Study]]


def test_a_study_is_read_as_it_was_made_and_asks_the_same_again(make_study: Make) -> None:
    folder, study = make_study()
    again = open_study(folder)
    assert again == study
    assert again.questions(study.raters[0]) == study.questions(study.raters[0])
    assert study.questions(study.raters[0]) != study.questions(study.raters[1])


def test_all_pairs_come_equally_often_and_both_sides_about_as_often(make_study: Make) -> None:
    _, study = make_study(raters=12, comparisons=30)
    pairs, left = Counter(), Counter()
    for rater in study.raters:
        questions = study.questions(rater)
        assert [q.number for q in questions] == list(range(study.total))
        mine = Counter()
        for q in questions:
            (a, name), (b, other) = (study.clips[study.checks.get(clip, clip)] for clip in (q.left, q.right))
            assert name == other
            assert q.prompt == study.prompts[name]
            if q.broken is None:
                assert a != b
                mine[frozenset((a, b))] += 1
                left[a < b] += 1
            else:
                assert a == b
                assert {q.left, q.right} == {q.broken, study.checks[q.broken]}
        assert set(mine.values()) == {10}
        pairs += mine
        assert sum(q.broken is not None for q in questions) == 3 == study.total - 30
    assert set(pairs.values()) == {120}
    assert 0.4 < left[True] / 360 < 0.6


def test_clips_say_nothing_of_their_model_and_are_the_same_pictures(
    make_study: Make, sets: dict[str, list[Entry]]
) -> None:
    folder, study = make_study()
    assert len(list((folder / CLIPS).iterdir())) == 9 + len(study.checks)
    for clip, (model, name) in study.clips.items():
        path = folder / CLIPS / f"{clip}.mp4"
        entry = next(entry for entry in sets[model] if entry.name == name)
        assert read_metadata(entry.path)["model"] == model
        assert read_metadata(path) == {}
        assert model.encode() not in path.read_bytes()
        assert (read_video(path)[0] == read_video(entry.path)[0]).all()
        assert model not in clip


def test_what_no_browser_plays_is_recoded(tmp_path: Path) -> None:
    sets = {}
    for model in ("a", "b"):
        (tmp_path / model).mkdir()
        write_video(tmp_path / model / "x.gif", np.full((5, 32, 32, 3), 90, np.uint8), 10.0)
        sets[model] = read_videos(tmp_path / model, [Prompt(text="grey")])
    study = create_study(tmp_path / "s", sets, raters=1, comparisons=1, seed=0, progress=lambda *_: None)
    frames, _ = read_video(tmp_path / "s" / CLIPS / f"{next(iter(study.clips))}.mp4")
    assert abs(int(frames.mean()) - 90) < 4


def test_a_broken_clip_has_the_same_size_and_is_visibly_worse() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
    broken = break_video(frames)
    assert broken.shape == frames.shape
    assert len(np.unique(broken[0].reshape(-1, 3), axis=0)) < 0.1 * 48 * 64
    assert (break_video(frames) == broken).all()


def test_an_answer_is_replaced_by_a_later_one_and_outlives_a_killed_process(make_study: Make) -> None:
    folder, study = make_study()
    writer = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from openltx.eval.survey.answers import Answer, Answers\n"
        "from openltx.eval.survey.study import open_study\n"
        "folder = Path(sys.argv[1])\n"
        "study = open_study(folder)\n"
        "rater = study.raters[0]\n"
        "store = Answers(folder / 'answers.sqlite')\n"
        "for question in study.questions(rater):\n"
        "    store.keep(Answer(rater=rater, question=question, choices=('left',) * 4, seconds=1.0))\n"
        "    print(question.number, flush=True)\n"
        "    if question.number == 6:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", writer, str(folder)], capture_output=True, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    store, rater = Answers(folder / ANSWERS), study.raters[0]
    assert store.answered(rater) == set(map(int, done.stdout.split())) == set(range(7))
    question = study.questions(rater)[3]
    store.keep(Answer(rater=rater, question=question, choices=("right", "tie", "left", "tie"), seconds=2.5))
    kept = store.all()
    assert len(kept) == 7
    assert kept[3].choices == ("right", "tie", "left", "tie")
    assert (kept[3].question.left, kept[3].question.right) == (question.left, question.right)


def test_what_makes_no_study_is_one_error(sets: dict[str, list[Entry]], make_study: Make, tmp_path: Path) -> None:
    folder, study = make_study()
    quiet = {"seed": 0, "progress": lambda *_: None}
    with pytest.raises(DataError, match="holds a study already"):
        create_study(folder, sets, raters=1, comparisons=1, **quiet)
    with pytest.raises(RequestError, match="two of them"):
        create_study(tmp_path / "x", {"alpha": sets["alpha"]}, raters=1, comparisons=1, **quiet)
    nameless = {model: read_videos(entries[0].path.parent) for model, entries in sets.items()}
    with pytest.raises(DataError, match="--prompts"):
        create_study(tmp_path / "x", nameless, raters=1, comparisons=1, **quiet)
    with pytest.raises(DataError, match="no rater 'nobody'"):
        study.questions("nobody")
    with pytest.raises(DataError, match="There is no study"):
        open_study(tmp_path)
    (folder / STUDY).write_text("{}")
    with pytest.raises(DataError, match="is no study"):
        open_study(folder)


def test_the_command_makes_a_study_of_models_and_of_folders(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a ball\na cube\n")
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_checkpoint.read_bytes())
    line = [
        "eval",
        "survey",
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "--raters",
        "3",
        "--comparisons",
        "4",
        "--no-serve",
    ]
    made = tmp_path / "made"
    models = ["--models", str(tiny_checkpoint), str(other), "--steps", "1"]
    assert main([*line, *models, "--out", str(made)]) == 0
    study, said = open_study(made), capsys.readouterr().out
    assert study.models == ("tiny", "other")
    assert all(code in said for code in study.raters)
    assert main([*line, *models, "--out", str(made)]) == 2
    assert "holds a study already" in capsys.readouterr().err
    folders = ["--videos", str(made / "videos" / "tiny"), str(made / "videos" / "other")]
    assert main([*line, *folders, "--out", str(tmp_path / "again")]) == 0
    assert open_study(tmp_path / "again").prompts == study.prompts == {"0000": "a ball", "0001": "a cube"}
    assert main([*line, *models, *folders, "--out", str(tmp_path / "both")]) == 2
    assert main(["eval", "survey", "--models", "a", "b", "--out", str(tmp_path / "x")]) == 2
    assert "--prompts" in capsys.readouterr().err
    assert main(["eval", "survey", "report", "--study", str(made)]) == 2
    assert "no answers" in capsys.readouterr().err
    assert json.loads((made / STUDY).read_text())["version"] == 1
