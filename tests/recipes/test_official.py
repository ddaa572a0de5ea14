"""Configuration files of the official code become the same settings as our recipes; what we do not know is named."""

from dataclasses import replace

import pytest

from openltx.errors import RequestError
from openltx.flow.schedule import Schedule
from openltx.pipelines.request import Sampling
from openltx.recipes.generate import pass_settings, recipe
from openltx.recipes.official import read_official

BASE = """
checkpoint_path: "{file}"
guidance_scale: 3
stg_scale: 1
rescaling_scale: 0.7
skip_block_list: [19]
num_inference_steps: 40
stochastic_sampling: false
"""
DISTILLED_096 = """
pipeline_type: base
checkpoint_path: "ltxv-2b-0.9.6-distilled-04-25.safetensors"
guidance_scale: 1
stg_scale: 0
rescaling_scale: 1
num_inference_steps: 8
stochastic_sampling: true
"""
DEV_13B = """
pipeline_type: multi-scale
checkpoint_path: "{file}"
downscale_factor: 0.6666666
spatial_upscaler_model_path: "ltxv-spatial-upscaler-0.9.8.safetensors"
stochastic_sampling: false
first_pass:
  guidance_scale: [1, 1, 6, 8, 6, 1, 1]
  stg_scale: [0, 0, 4, 4, 4, 2, 1]
  rescaling_scale: [1, 1, 0.5, 0.5, 1, 1, 1]
  guidance_timesteps: [1.0, 0.996, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180]
  skip_block_list: [[], [11, 25, 35, 39], [22, 35, 39], [28], [28], [28], [28]]
  num_inference_steps: 30
  skip_final_inference_steps: 3
  cfg_star_rescale: true
second_pass:
  guidance_scale: [1]
  stg_scale: [1]
  rescaling_scale: [1]
  guidance_timesteps: [1.0]
  skip_block_list: [27]
  num_inference_steps: 30
  skip_initial_inference_steps: 17
  cfg_star_rescale: true
"""
DISTILLED = """
pipeline_type: multi-scale
checkpoint_path: "{file}"
downscale_factor: 0.6666666
spatial_upscaler_model_path: "ltxv-spatial-upscaler-0.9.8.safetensors"
first_pass:
  timesteps: [1.0000, 0.9937, 0.9875, 0.9812, 0.9750, 0.9094, 0.7250]
  guidance_scale: 1
  stg_scale: 0
  rescaling_scale: 1
  skip_block_list: [42]
second_pass:
  timesteps: [0.9094, 0.7250, 0.4219]
  guidance_scale: 1
  stg_scale: 0
  rescaling_scale: 1
  skip_block_list: [42]
"""
TONE_MAPPED = DISTILLED + "  tone_map_compression_ratio: 0.6\n"
COMMON = """
stg_mode: "attention_values"
decode_timestep: 0.05
decode_noise_scale: 0.025
text_encoder_model_name_or_path: "PixArt-alpha/PixArt-XL-2-1024-MS"
precision: "bfloat16"
sampler: "from_checkpoint"
prompt_enhancement_words_threshold: 0
prompt_enhancer_image_caption_model_name_or_path: "somebody/captions"
prompt_enhancer_llm_model_name_or_path: "somebody/writes"
"""
ROWS = {
    "ltxv-2b-0.9": (BASE, "ltx-video-2b-v0.9"),
    "ltxv-2b-0.9.1": (BASE, "ltx-video-2b-v0.9.1"),
    "ltxv-2b-0.9.5": (BASE, "ltx-video-2b-v0.9.5"),
    "ltxv-2b-0.9.6-dev": (BASE, "ltxv-2b-0.9.6-dev-04-25"),
    "ltxv-2b-0.9.6-distilled": (DISTILLED_096, ""),
    "ltxv-13b-0.9.8-dev": (DEV_13B, "ltxv-13b-0.9.8-dev"),
    "ltxv-13b-0.9.8-dev-fp8": (DEV_13B, "ltxv-13b-0.9.8-dev-fp8"),
    "ltxv-13b-0.9.8-distilled": (TONE_MAPPED, "ltxv-13b-0.9.8-distilled"),
    "ltxv-13b-0.9.8-distilled-fp8": (TONE_MAPPED, "ltxv-13b-0.9.8-distilled-fp8"),
    "ltxv-2b-0.9.8-distilled": (DISTILLED, "ltxv-2b-0.9.8-distilled"),
    "ltxv-2b-0.9.8-distilled-fp8": (DISTILLED, "ltxv-2b-0.9.8-distilled-fp8"),
}


def read(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return read_official(path)


@pytest.mark.parametrize("name", ROWS)
def test_each_official_configuration_is_the_recipe_of_its_release(tmp_path, name):
    text, file = ROWS[name]
    ours, theirs = recipe(name), read(tmp_path, text.replace("{file}", f"{file}.safetensors") + COMMON)
    assert theirs.model == name
    assert (theirs.upscaler, theirs.schedule, theirs.notes) == (ours.upscaler, None, ())
    expected, got = Sampling(**ours.sampling), Sampling(**theirs.sampling)
    if name.startswith("ltxv-2b-0.9.8"):  # names a block that the model has not, and does not use it
        got = replace(got, skip_blocks=())
    if name in ("ltxv-2b-0.9", "ltxv-2b-0.9.1", "ltxv-2b-0.9.5"):  # announced at another size than the command's
        got = replace(got, width=768, height=512, fps=25.0)
    if "times" in ours.sampling:
        got = replace(got, steps=expected.steps)
    assert got == expected
    if ours.two_pass is None:
        assert theirs.two_pass is None
        return
    assert theirs.two_pass is not None
    assert theirs.two_pass.downscale == ours.two_pass.downscale == 0.6666666
    for our_pass, their_pass in ((ours.two_pass.first, theirs.two_pass.first),
                                 (ours.two_pass.second, theirs.two_pass.second)):  # fmt: skip
        assert our_pass.keys() == their_pass.keys()
        different = {key for key in our_pass if our_pass[key] != their_pass[key]}
        assert different <= ({"skip_blocks"} if name.startswith("ltxv-2b") else set())


def test_the_first_13b_configuration_names_what_has_gone(tmp_path):
    text = DEV_13B.replace("  skip_initial_inference_steps: 17", "  strength: 0.85").replace("steps: 30", "steps: 10")
    with pytest.raises(RequestError, match=r'config\.yaml.*"second_pass\.strength".*skip_initial_inference_steps'):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BASE + "guidence_scale: 3", '"guidence_scale".*Did you mean guidance_scale'),
        (DISTILLED + "  decode_timestep: 0.1", r'"second_pass\.decode_timestep"'),
        (BASE + "stg_mode: swirl", "stg_mode=.swirl.*attention_values"),
        (BASE + "sampler: cosine", 'sampler="cosine"'),
        (BASE + "pipeline_type: triple", 'pipeline_type="triple"'),
        (BASE + "first_pass: {guidance_scale: 1}", "first_pass: only a multi-scale"),
        (BASE.replace("scale: 3", "scale: high"), "guidance_scale=.high. .*a number"),
        (BASE.replace("scale: 0.7", "scale: 7"), "rescale=7"),
        (BASE.replace("[19]", "{a: 1}"), "skip_block_list"),
        (BASE.replace("[19]", "19"), "skip_block_list=19.*it is a list"),
        (BASE.replace("steps: 40", "steps: 4.5"), "num_inference_steps=4.5.*whole"),
        (BASE.replace("steps: 40", "steps: [4]"), "num_inference_steps=.4.*not a list"),
        (DISTILLED.replace("downscale_factor: 0.6666666", "downscale_factor: 3"), "downscale_factor=3"),
        (DISTILLED.split("second_pass")[0], "second_pass is missing"),
        ("guidance_scale: 3", "checkpoint_path"),
        ("just words", "holds no settings"),
        ("a: [1", "is no YAML"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path, text, complaint):
    with pytest.raises(RequestError, match=rf"config\.yaml.*{complaint}"):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"nothing\.yaml cannot be read"):
        read_official(tmp_path / "nothing.yaml")


def test_yaml_runs_no_code(tmp_path):
    with pytest.raises(RequestError, match="is no YAML"):
        read(tmp_path, 'checkpoint_path: !!python/object/apply:os.system ["true"]')


def test_what_is_not_done_is_said(tmp_path):
    text = BASE + "prompt_enhancement_words_threshold: 120\nprecision: float8_e4m3fn\n"
    notes = read(tmp_path, text.replace("{file}", "a.safetensors")).notes
    assert any("fewer than 120 words" in note for note in notes)
    assert any("--precision" in note for note in notes)


@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [("uniform", Schedule(kind="uniform")), ("linear-quadratic", Schedule()), ("from_checkpoint", None)],
)
def test_a_sampler_replaces_the_files_schedule(tmp_path, sampler, schedule):
    assert read(tmp_path, BASE + f"sampler: {sampler}").schedule == schedule


def test_rescaling_happens_only_beside_stg_and_is_off_at_one(tmp_path):
    def rescale(text):
        return read(tmp_path, "checkpoint_path: a.safetensors\nskip_block_list: [1]\n" + text).sampling["rescale"]

    assert rescale("stg_scale: 0\nrescaling_scale: 0.7") == 0
    assert rescale("stg_scale: 1\nrescaling_scale: 1") == 0
    assert rescale("stg_scale: 1\nrescaling_scale: 0.7") == 0.7
    times = "guidance_timesteps: [1.0, 0.5, 0.2]\n"
    assert rescale(times + "stg_scale: [0, 1, 1]\nrescaling_scale: 0.7") == (0, 0.7, 0.7)
    assert rescale(times + "stg_scale: [0, 1, 1]\nrescaling_scale: [0.5, 0.5, 1]") == (0, 0.5, 0)


def test_what_a_configuration_leaves_out_is_as_in_the_official_code(tmp_path):
    sampling = read(tmp_path, "checkpoint_path: a.safetensors\nskip_block_list: [1]").sampling
    assert (sampling["steps"], sampling["cfg"], sampling["stg"], sampling["rescale"]) == (20, 4.5, 1.0, 0.7)


def test_explicit_timesteps_put_aside_steps_and_skipping(tmp_path):
    text = DISTILLED.replace("  skip_block_list: [42]\nsecond", "  skip_final_inference_steps: 3\nsecond")
    first = read(tmp_path, text).two_pass.first
    assert first["skip_final"] == 0
    assert first["times"][-1] == 0.725


def test_a_file_beside_the_configuration_comes_before_the_release(tmp_path):
    (tmp_path / "ltx-video-2b-v0.9.safetensors").write_text("")
    text = BASE.replace("{file}", "ltx-video-2b-v0.9.safetensors")
    assert read(tmp_path, text).model == tmp_path / "ltx-video-2b-v0.9.safetensors"
    assert read(tmp_path, BASE.replace("{file}", "mine.safetensors")).model.name == "mine.safetensors"


def test_a_pass_says_everything_that_a_pass_can_differ_in():
    first = pass_settings({"cfg": 2.0, "width": 64})
    assert first["cfg"] == 2.0
    assert first["guidance_times"] is None
    assert "width" not in first
