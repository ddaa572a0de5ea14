"""The folder of files: whole or not there, and nothing left that belongs to nobody."""

from pathlib import Path

import pytest

from openltx.errors import ServeError
from openltx.serve.files import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path / "data")
    files.prepare()
    return files


def test_the_folder_is_this_users_alone(files: Files) -> None:
    assert files.root.stat().st_mode & 0o077 == 0


def test_a_jobs_inputs_outlive_the_uploads_they_come_from(files: Files) -> None:
    upload = files.upload("file-1", "picture")
    upload.write_bytes(b"pixels")
    files.open_job("video_1", {"file-1": upload})
    files.discard_upload("file-1")
    assert not upload.exists()
    assert files.input("video_1", "file-1").read_bytes() == b"pixels"
    with pytest.raises(ServeError, match="vanished"):
        files.input("video_1", "file-2")


def test_results_are_handed_over_and_scratch_is_gone(files: Files) -> None:
    files.open_job("video_1", {})
    with files.scratch() as folder:
        (folder / "video.mp4").write_bytes(b"12345")
        assert files.hand_over(folder, "video_1") == 5
    assert files.content("video_1", "video").read_bytes() == b"12345"
    assert list((files.root / "scratch").iterdir()) == []


def test_nothing_can_be_handed_to_a_deleted_job(files: Files) -> None:
    files.open_job("video_1", {})
    with files.scratch() as folder:
        (folder / "video.mp4").write_bytes(b"12345")
        files.discard_job("video_1")
        with pytest.raises(FileNotFoundError):
            files.hand_over(folder, "video_1")
    assert [path for name in ("jobs", "scratch", "trash") for path in (files.root / name).iterdir()] == []


def test_a_sweep_takes_what_belongs_to_nobody_and_leaves_the_rest(files: Files) -> None:
    for job in ("video_1", "video_2"):
        files.open_job(job, {})
    for upload in ("file-1", "file-2"):
        files.upload(upload, "clip").write_bytes(b"x")
    (files.root / "scratch" / "half").mkdir()
    (files.root / "scratch" / "half" / "video.mp4").write_bytes(b"x")
    (files.root / "trash" / "old").write_bytes(b"x")
    swept = files.sweep({"video_1"}, {"file-1"})
    assert sorted(swept) == ["jobs/video_2", "scratch/half", "trash/old", "uploads/file-2.mp4"]
    left = {str(path.relative_to(files.root)) for path in files.root.rglob("*") if not path.is_dir()}
    assert left == {"uploads/file-1.mp4"}
    assert files.job("video_1").is_dir()
    assert files.sweep({"video_1"}, {"file-1"}) == []


def test_one_server_a_folder(files: Files) -> None:
    with files.locked(), pytest.raises(ServeError, match="Another server"), files.locked():
        pass
    with files.locked():
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServeError, match="--data"):
        Files(tmp_path / "file" / "data").prepare()
