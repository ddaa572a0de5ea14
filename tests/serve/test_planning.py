"""What a request costs before it is ordered, what the model prefers, and a worker with the flags of ``generate``."""

from pathlib import Path
from typing import Any

import pytest

from openltx.media.io import read_metadata
from openltx.pipelines.plan import plan
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import choose_device, placement_of
from openltx.recipes.opening import ModelFlags


def test_the_model_says_what_it_prefers_and_what_is_taken(server: Any) -> None:
    (model,) = server.call("GET", "/v1/models").json()["data"]
    assert model == server.call("GET", "/v1/models/tiny").json()
    assert (model["defaults"]["frames"], model["defaults"]["width"], model["defaults"]["steps"]) == (9, 64, 3)
    assert model["defaults"]["decode_noise_scale"] == 0.025
    assert model["two_pass"] is False
    assert model["limits"]["frames"] == 257


def test_a_plan_is_the_arithmetic_of_the_request(server: Any, tiny_checkpoint: Path) -> None:
    server.finished(server.create(steps=2)["id"])
    answer = server.call("POST", "/v1/plan", {"size": "64x64", "frames": 17, "steps": 2, "cfg": 1.0})
    assert answer.status == 200, answer.body
    found = answer.json()
    known = ModelFlags(model=str(tiny_checkpoint)).choose(None, None).description
    request = GenerationRequest("a ball", size="64x64", frames=17, steps=2, cfg=1.0)
    exact = plan(known, request, placement_of("float32", choose_device("cpu")), "resident")
    assert found["memory_bytes"] == exact.peak
    assert [stage["flops"] for stage in found["stages"]] == [stage.flops for stage in exact.stages]
    assert (found["size"], found["frames"], found["steps"], found["seconds"]) == ("64x64", 17, 2, "2.125")
    assert (found["fits"], found["waiting"]) == (True, 0)
    assert 0 < found["takes_seconds"] < 60


def test_a_longer_video_takes_longer(server: Any) -> None:
    server.finished(server.create(steps=2)["id"])
    one, two = (server.call("POST", "/v1/plan", {"frames": frames}).json() for frames in (9, 97))
    assert two["takes_seconds"] > one["takes_seconds"]
    assert two["memory_bytes"] >= one["memory_bytes"]


@pytest.mark.parametrize(
    "body",
    [{"frames": 100_000}, {"size": "1x"}, {"image": "/etc/passwd"}, {"steps": 0}, {"colour": 1}, {"cfg": [1, 2]}],
)
def test_a_plan_refuses_what_would_be_refused(server: Any, body: dict[str, Any]) -> None:
    answer = server.call("POST", "/v1/plan", body)
    assert answer.status == 400
    assert answer.error["message"]


def test_the_worker_takes_the_flags_of_generate_and_makes_two_passes(
    start: Any, upscaler_files: dict[str, Path], tmp_path: Path
) -> None:
    flags = ["--upscaler", str(upscaler_files["space"]), "--residency", "offloaded", "--first-pass", "steps=2"]
    server = start(tmp_path / "data", *flags)
    (model,) = server.call("GET", "/v1/models").json()["data"]
    assert model["two_pass"] is True
    planned = server.call("POST", "/v1/plan", {"size": "96x64"}).json()
    assert [stage["name"] for stage in planned["stages"]].count("decode") == 1
    done = server.finished(server.create(size="96x64")["id"])
    assert (done["status"], done["size"]) == ("completed", "96x64"), done
    told = server.call("GET", f"/v1/videos/{done['id']}/events").body.decode()
    assert '"steps": 4' in told  # two of the first pass, and two that the second one does not leave out
    (tmp_path / "x.mp4").write_bytes(server.call("GET", f"/v1/videos/{done['id']}/content").body)
    assert "two_pass" in read_metadata(tmp_path / "x.mp4")
    server.stop()
