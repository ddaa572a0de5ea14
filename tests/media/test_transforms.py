"""Frames to tensors and back, and changes of size."""

import numpy as np
import pytest
import torch

from openltx.media.transforms import crop_to, pad_to, resize_cover, to_frames, to_tensor


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_level_survives_the_way_to_a_tensor_and_back():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    assert np.array_equal(to_frames(to_tensor(frames)), frames)


def test_tensors_are_channels_first_in_minus_one_to_one():
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    frames[1, 2, 3] = (255, 0, 51)
    video = to_tensor(frames)
    assert video.shape == (3, 2, 4, 6)
    assert video[:, 1, 2, 3].tolist() == pytest.approx([1, -1, -0.6])


def test_frames_are_rounded_and_clamped():
    values = torch.tensor([-7.0, -1.0, -0.9999, 0.0, 0.0039, 1.0, 1.2]).expand(3, 1, 1, -1)
    assert to_frames(values)[0, 0, :, 0].tolist() == [0, 0, 0, 128, 128, 255, 255]
    assert np.array_equal(to_frames(values.bfloat16()[..., :2]), to_frames(values[..., :2]))


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (20, 50), (33, 31)])
def test_cover_gives_the_asked_size(size):
    assert resize_cover(noise(48, 64, 3), *size).shape == (*size, 3)


def test_cover_of_the_same_size_changes_nothing():
    frame = noise(32, 48, 3)
    assert np.array_equal(resize_cover(frame, 32, 48), frame)


def test_cover_cuts_the_same_from_both_ends_and_does_not_stretch():
    frame = np.zeros((40, 120, 3), np.uint8)
    frame[:, 40:80] = 255  # the middle third of a wide frame is the whole of the square
    assert resize_cover(frame, 40, 40).min() == 255
    shrunk = resize_cover(frame.transpose(1, 0, 2).copy(), 20, 20)
    assert shrunk[2:-2].min() >= 250  # the outermost rows see a little across the cut, as in resizing before cutting
    assert np.array_equal(shrunk, shrunk[::-1])


def test_cover_averages_when_it_shrinks():
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    assert np.abs(resize_cover(checkers, 8, 8).astype(int) - 128).max() <= 8


@pytest.mark.parametrize("size", [(32, 64), (21, 33), (20, 30)])
def test_cropping_undoes_padding(size):
    frame = noise(20, 30, 3)
    padded = pad_to(frame, *size)
    assert padded.shape == (*size, 3)
    assert np.array_equal(crop_to(padded[None], 20, 30)[0], frame)


def test_padding_is_mid_grey_with_the_odd_line_below_and_right():
    padded = pad_to(np.zeros((1, 1, 3), np.uint8), 2, 4)
    assert padded[..., 0].tolist() == [[128, 0, 128, 128], [128, 128, 128, 128]]
    assert to_tensor(padded[None]).abs().min() < 0.01
