"""What the official client does not show: ranges, events, cancelling, metrics, health, headers, the page."""

import http.client
import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def video(server: Any) -> str:
    """A finished video."""
    job = server.finished(server.create(steps=2)["id"])
    assert job["status"] == "completed"
    return job["id"]


def events(server: Any, video: str, last: str | None = None) -> list[tuple[str, dict[str, Any], str | None]]:
    """(kind, data, id) of all server-sent events until the stream ends."""
    answer = server.call("GET", f"/v1/videos/{video}/events", headers={"Last-Event-ID": last} if last else None)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"]), fields.get("id")))
    return found


def test_ranges_are_parts_of_the_whole(server: Any, video: str) -> None:
    path = f"/v1/videos/{video}/content"
    whole = server.call("GET", path)
    assert (whole.status, whole.headers["content-type"]) == (200, "video/mp4")
    size = len(whole.body)
    for asked, part in (
        ("bytes=0-9", whole.body[:10]),
        ("bytes=10-", whole.body[10:]),
        ("bytes=-7", whole.body[-7:]),
        (f"bytes=5-{size + 100}", whole.body[5:]),
        (f"bytes=-{size + 100}", whole.body),
    ):
        answer = server.call("GET", path, headers={"Range": asked})
        assert (answer.status, answer.body) == (206, part)
        start = size - len(part) if asked.startswith("bytes=-") else int(asked[6:].split("-")[0])
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    beyond = server.call("GET", path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert beyond.error["code"] == "range"
    for nonsense in ("bytes=-", "bytes=9-3", "lines=1-2", "bytes=0-1,5-6", "bytes=a-b", "bytes=" + "9" * 500 + "-"):
        answer = server.call("GET", path, headers={"Range": nonsense})
        assert (answer.status, answer.body) == (200, whole.body)


def test_a_client_that_has_it_is_told_so(server: Any, video: str) -> None:
    path = f"/v1/videos/{video}/content"
    head = server.call("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    tag = head.headers["etag"]
    assert server.call("GET", path, headers={"If-None-Match": tag}).status == 304
    assert server.call("GET", path, headers={"Range": "bytes=0-3", "If-Range": tag}).status == 206
    assert server.call("GET", path, headers={"Range": "bytes=0-3", "If-Range": '"old"'}).status == 200


def test_the_events_tell_the_whole_story_and_again_from_where_one_was(server: Any) -> None:
    job = server.create(steps=4)
    told = events(server, job["id"])
    kinds = [kind for kind, *_ in told]
    logs = [data["message"] for kind, data, _ in told if kind == "log"]
    assert "9 frames of 64x32" in logs[0]
    assert len(logs) == 3
    assert [data["status"] for kind, data, _ in told if kind == "status"] == ["queued", "in_progress", "completed"]
    assert [data["step"] for kind, data, _ in told if kind == "progress" and data["stage"] == "sample"] == [1, 2, 3, 4]
    previews = [data["image"] for kind, data, _ in told if kind == "preview"]
    assert previews
    assert all(image.startswith("data:image/jpeg;base64,/9j/") for image in previews)
    assert kinds[-1] == "done"
    assert told[-1][1]["status"] == "completed"
    middle = told[3][2]
    assert [number for *_, number in events(server, job["id"], middle)] == [number for *_, number in told[4:]]


def test_a_deletion_ends_the_events(server: Any) -> None:
    job = server.create(steps=200, size="128x128")
    server.running(job["id"])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", f"/v1/videos/{job['id']}/events")
    response = connection.getresponse()
    assert response.readline()
    assert server.call("DELETE", f"/v1/videos/{job['id']}").status == 200
    assert b"event: deleted" in response.read()
    connection.close()


def test_cancelling_stops_a_running_job_and_the_next_one_begins(server: Any) -> None:
    first, second = server.create(steps=200, size="256x256"), server.create(steps=1)
    server.running(first["id"])
    assert server.get(second["id"])["queue_position"] == 0
    mark = len(server.events)
    answer = server.call("POST", f"/v1/videos/{first['id']}/cancel")
    assert (answer.status, answer.json()["status"]) == (200, "cancelled")
    server.wait_for("job.dropped", after=mark, job=first["id"])
    assert server.finished(second["id"])["status"] == "completed"
    again = server.call("POST", f"/v1/videos/{second['id']}/cancel")
    assert (again.status, again.error["code"]) == (409, "already_ended")
    gone = server.call("GET", f"/v1/videos/{first['id']}/content")
    assert (gone.status, gone.error["code"]) == (404, "no_video")


def test_what_the_model_refuses_fails_the_job_in_words(server: Any) -> None:
    job = server.finished(server.create(stg=1.0, skip_blocks=[99])["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "invalid_request")
    assert "skip_blocks" in job["error"]["message"]


def test_a_finished_video_is_the_start_of_another_one(server: Any, video: str) -> None:
    job = server.finished(server.create(keyframes=[f"{video}@0"], frames=17)["id"])
    assert job["status"] == "completed"
    assert job["request"]["keyframes"] == [f"{video}@0"]


def test_uploads_come_back_as_clean_copies(server: Any) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (10, 200, 10)).save(buffer, "BMP")
    assert server.upload(buffer.getvalue()).status == 400
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (10, 200, 10)).save(buffer, "JPEG", comment=b"my address")
    kept = server.upload(buffer.getvalue(), "../../etc/passwd.jpg", "text/html").json()
    assert (kept["kind"], kept["width"], kept["height"], kept["filename"]) == ("picture", 20, 10, "passwd.jpg")
    content = server.call("GET", f"/v1/files/{kept['id']}/content")
    assert content.headers["content-type"] == "image/png"
    assert b"my address" not in content.body


def test_health_readiness_and_metrics(server: Any, video: str) -> None:
    assert server.call("GET", "/healthz").json() == {"status": "ok"}
    assert server.call("GET", "/readyz").json() == {"status": "ready"}
    text = server.call("GET", "/metrics").body.decode()
    for line in (
        'openltx_jobs{status="queued"}',
        'openltx_jobs_finished_total{status="completed"}',
        'openltx_stage_seconds_total{stage="sample"}',
        'openltx_http_requests_total{method="GET",route="/v1/videos/{video_id}",status="200"}',
        "openltx_workers 1.0",
        "openltx_disk_bytes",
    ):
        assert line in text, line
    assert video not in text


def test_the_api_describes_itself_without_scripts_or_other_sites(server: Any) -> None:
    document = server.call("GET", "/openapi.json").json()
    fields = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "properties"
    ]
    assert {"prompt", "seconds", "size", "input_reference", "steps", "keyframes", "seed"} <= set(fields)
    page = server.call("GET", "/docs").body.decode()
    assert "POST /v1/videos" in page
    assert "What the video shows" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_every_answer_has_its_guards(server: Any, video: str) -> None:
    for path in ("/healthz", f"/v1/videos/{video}", f"/v1/videos/{video}/content", "/nowhere", "/docs"):
        headers = server.call("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "content-security-policy" in headers
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_other_sites_and_other_names_get_nothing(server: Any) -> None:
    for headers, code in (
        ({"Origin": "http://evil.example"}, "wrong_origin"),
        ({"Origin": "null"}, "wrong_origin"),
        ({"Origin": "http://[::1"}, "wrong_origin"),
        ({"Host": "evil.example"}, "wrong_host"),
        ({"Host": "evil.example:80@localhost["}, "wrong_host"),
    ):
        answer = server.call("POST", "/v1/videos", {"prompt": "a ball"}, headers)
        assert (answer.status, answer.error["code"]) == (403, code)
    own = {"Origin": server.url}
    assert server.call("GET", "/v1/videos", headers=own).status == 200


def test_the_log_is_json_and_knows_no_prompt(server: Any) -> None:
    job = server.finished(server.create("a very private wish")["id"])
    done = server.wait_for("job.completed", job=job["id"])
    assert set(done["stages"]) == {"queued", "prepare", "sample", "decode", "write"}
    assert "private" not in json.dumps(server.events)
