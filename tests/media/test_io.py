"""Round trips through every format, and what happens to files that are not what they should be."""

import numpy as np
import pytest
from PIL import Image

from openltx.errors import MediaError
from openltx.geometry import VideoShape
from openltx.media import VideoWriter, probe, read_image, read_metadata, read_video, write_video
from openltx.media.writers import SUFFIXES

METADATA = {"prompt": 'a "red" ball, été, 北京\nsecond line', "request": '{"seed": 7}', "empty": "", "long": "x" * 3000}


def moving_square(num_frames=9, height=32, width=48):
    """A white square that moves right over a smooth ramp."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = np.linspace(20, 120, width, dtype=np.uint8)[None, None, :, None]
    for index in range(num_frames):
        frames[index, 8:20, 3 * index : 3 * index + 12] = 255
    return frames


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def mean_error(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean()


@pytest.mark.parametrize(("suffix", "tolerance"), [(".mp4", 1.5), (".gif", 3.0), (".webp", 2.0)])
def test_a_video_survives_its_format(tmp_path, suffix, tolerance):
    frames = moving_square()
    path = tmp_path / f"clip{suffix}"
    assert write_video(path, frames, 24.0) == [path]
    back, fps = read_video(path)
    assert back.shape == frames.shape
    assert mean_error(back, frames) < tolerance
    assert fps == pytest.approx(24, rel=0.02)
    found = probe(path)
    assert found == VideoShape(frames=9, height=32, width=48, fps=fps)
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("size", [(33, 48), (32, 47), (31, 45)])
def test_mp4_keeps_odd_sizes(tmp_path, size):
    frames = moving_square(3, *size)
    write_video(tmp_path / "odd.mp4", frames, 24.0)
    back, _ = read_video(tmp_path / "odd.mp4")
    assert back.shape == frames.shape
    assert mean_error(back, frames) < 1.5


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (255, 255, 255), (0, 0, 0)])
@pytest.mark.parametrize("height", [32, 33])
def test_mp4_keeps_solid_colours_within_three_levels(tmp_path, colour, height):
    frames = np.full((2, height, 32, 3), colour, np.uint8)
    write_video(tmp_path / "solid.mp4", frames, 24.0)
    back, _ = read_video(tmp_path / "solid.mp4")
    assert np.abs(back.astype(int) - frames).max() <= 3


def test_mp4_is_marked_as_bt709_limited_range(tmp_path):
    import av

    write_video(tmp_path / "a.mp4", moving_square(2), 24.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)
        assert codec.pix_fmt == "yuv420p"


def test_a_fractional_frame_rate_is_kept(tmp_path):
    write_video(tmp_path / "ntsc.mp4", moving_square(), 30000 / 1001)
    assert probe(tmp_path / "ntsc.mp4").fps == pytest.approx(30000 / 1001, abs=1e-9)


def test_a_lower_crf_is_closer(tmp_path):
    frames = moving_square()
    errors = []
    for crf in (5, 40):
        write_video(tmp_path / "a.mp4", frames, 24.0, crf=crf)
        errors.append(mean_error(read_video(tmp_path / "a.mp4")[0], frames))
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_comes_back_exactly(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    for written in write_video(path, moving_square(3), 24.0, METADATA):
        assert read_metadata(written) == METADATA


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_metadata_has_an_empty_dictionary(tmp_path, suffix):
    [path, *_] = write_video(tmp_path / f"clip{suffix}", moving_square(2), 24.0)
    assert read_metadata(path) == {}


def test_somebody_elses_comment_is_no_metadata(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif", comment=b'{"seed": 7}')
    assert read_metadata(tmp_path / "a.gif") == {}


def test_png_is_exact_and_several_frames_are_numbered(tmp_path):
    frames = moving_square(3)
    assert write_video(tmp_path / "one.png", frames[:1], 24.0) == [tmp_path / "one.png"]
    series = write_video(tmp_path / "clip.png", frames, 24.0)
    assert names(tmp_path) == ["clip-0001.png", "clip-0002.png", "clip-0003.png", "one.png"]
    assert np.array_equal(np.stack([read_image(path) for path in series]), frames)
    assert np.array_equal(read_video(tmp_path / "one.png")[0], frames[:1])


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_part_of_a_video_is_that_part_of_the_whole(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    write_video(path, moving_square(), 24.0)
    whole, fps = read_video(path)
    for start, count in ((0, 1), (3, 4), (5, None), (8, 1)):
        part, same_fps = read_video(path, start, count)
        assert np.array_equal(part, whole[start : None if count is None else start + count])
        assert same_fps == fps


@pytest.mark.parametrize(("start", "count"), [(9, None), (9, 1), (5, 5)])
def test_asking_for_more_frames_than_there_are_is_an_error(tmp_path, start, count):
    write_video(tmp_path / "clip.mp4", moving_square(), 24.0)
    with pytest.raises(MediaError, match="too short"):
        read_video(tmp_path / "clip.mp4", start, count)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_video_is_an_error(tmp_path, suffix, share):
    path = tmp_path / f"clip{suffix}"
    write_video(path, moving_square(num_frames=30, height=64, width=96), 24.0)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match="clip"):
        read_video(path)


def test_a_video_without_its_index_is_an_error(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, moving_square(), 24.0)
    path.write_bytes(path.read_bytes()[:200])
    for read in (read_video, probe, read_metadata):
        with pytest.raises(MediaError, match="no video in it, or only its beginning"):
            read(path)


@pytest.mark.parametrize("name", ["text.mp4", "text.png", "text.gif", "text.webp", "text.xyz"])
def test_a_file_that_is_no_media_is_an_error(tmp_path, name):
    (tmp_path / name).write_text("once upon a time " * 20)
    for read in (read_image, read_video, probe, read_metadata):
        with pytest.raises(MediaError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["none.mp4", "none.png", "none/none.webp"])
def test_a_missing_file_is_an_error(tmp_path, name):
    for read in (read_image, read_video, probe, read_metadata):
        with pytest.raises(MediaError, match="no file"):
            read(tmp_path / name)


def test_a_truncated_picture_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=r"a\.jpg cannot be read"):
        read_image(tmp_path / "a.jpg")


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:5, :5] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right
    Image.fromarray(np.rot90(upright)).save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "phone.png"), upright)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    # "P" stands for a palette with a transparent entry
    (image.quantize(4) if mode == "P" else image.convert(mode)).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png").tolist() == [[[255, 255, 255], [0, 0, 0]]]


def test_half_transparency_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (1, 1), (255, 0, 0, 128)).save(tmp_path / "half.png")
    assert np.abs(read_image(tmp_path / "half.png").astype(int) - (255, 127, 127)).max() <= 1


def test_sixteen_bits_become_eight(tmp_path):
    levels = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_other_pixel_formats_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (8, 6), "white").convert(mode).save(path)
    picture = read_image(path)
    assert picture.shape == (6, 8, 3)
    assert picture.min() >= 250


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip.avi", r"\.mp4, \.gif, \.webp, \.png"),
        ("clip", r"no suffix.*\.mp4, \.gif, \.webp, \.png"),
        ("none/clip.mp4", "no folder .*none"),
        ("folder.mp4", "is a folder"),
    ],
)
def test_a_target_that_cannot_be_is_refused(tmp_path, name, message):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(MediaError, match=message):
        write_video(tmp_path / name, moving_square(2), 24.0)
    assert names(tmp_path) == ["folder.mp4"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    resource = pytest.importorskip("resource")
    path = tmp_path / f"clip{suffix}"
    path.write_text("old")
    noise = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    frames = noise if suffix == ".png" else np.concatenate([noise, noise[:, ::-1], noise[:, :, ::-1]])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # as a full disk: writing fails with an OSError
    try:
        with pytest.raises(MediaError, match=f"Cannot write .*clip{suffix}"):
            write_video(path, frames, 24.0, METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert names(tmp_path) == [path.name]


def test_the_same_frames_give_the_same_file_every_time(tmp_path):
    files = [tmp_path / f"{i}.mp4" for i in range(20)]
    for path in files:
        write_video(path, moving_square(), 24.0, METADATA)
    assert len({path.read_bytes() for path in files}) == 1


def test_a_streamed_video_is_the_one_written_at_once(tmp_path):
    frames = moving_square()
    with VideoWriter(tmp_path / "streamed.mp4", 24.0, METADATA) as writer:
        writer.write(frames[:4])
        writer.write(frames[4:])
        assert "streamed.mp4" not in names(tmp_path)
    write_video(tmp_path / "whole.mp4", frames, 24.0, METADATA)
    assert np.array_equal(read_video(tmp_path / "streamed.mp4")[0], read_video(tmp_path / "whole.mp4")[0])
    assert read_metadata(tmp_path / "streamed.mp4") == METADATA


@pytest.mark.parametrize("frames_before", [0, 4])
def test_an_interrupt_leaves_nothing_behind(tmp_path, frames_before):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "clip.mp4", 24.0) as writer:  # noqa: PT012  the block is the case
        writer.write(moving_square()[:frames_before])
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_stream_without_frames_is_an_error(tmp_path):
    with pytest.raises(MediaError, match="no frames"), VideoWriter(tmp_path / "clip.mp4", 24.0):
        pass
    assert names(tmp_path) == []


def test_only_mp4_can_be_streamed(tmp_path):
    with pytest.raises(MediaError, match=r"only \.mp4"), VideoWriter(tmp_path / "clip.gif", 24.0):
        pass


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_have_the_usual_permissions(tmp_path, suffix):
    (tmp_path / "usual").write_text("")
    [path, *_] = write_video(tmp_path / f"clip{suffix}", moving_square(2), 24.0)
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
