"""The requests of the page, and those that it would never send."""

import io
from pathlib import Path

import pytest
from PIL import Image
from reviewed import TABLE, rows_of_table, write_audit
from starlette.testclient import TestClient

from fieldguide.review.app import make_app

HOSTS = ["127.0.0.1", "localhost", "[::1]"]
JSON = {"content-type": "application/json"}


@pytest.fixture
def client(folder, start):
    app = make_app(start(), hosts=HOSTS)
    return TestClient(app, base_url="http://127.0.0.1:8001", raise_server_exceptions=False)


def first(client):
    return client.get("/api/queue?count=1").json()["items"][0]


def test_queue_and_photo(client):
    answer = client.get("/api/queue?count=2&class=bee").json()
    assert [item["file"] for item in answer["items"]] == ["train/bee/00.png", "train/bee/01.png"]
    assert answer["by_class"] == {"ant": 20, "bee": 20, "crab": 20}
    assert (answer["waiting"], answer["total"]) == (60, 60)
    k = answer["items"][1]["id"]
    assert client.get(f"/api/queue?count=1&first={k}").json()["items"][0]["id"] == k
    found = client.get("/api/photo/0/large")
    assert found.headers["content-type"] == "image/jpeg"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.content.startswith(b"\xff\xd8\xff")


def test_a_decision_needs_what_was_seen(client):
    item = first(client)
    body = {"id": item["id"], "label": "bee", "seen": item["seen"]}
    assert client.post("/api/decide", json=body).status_code == 200
    assert rows_of_table()[item["file"]]["label"] == "bee"
    again = client.post("/api/decide", json=body | {"label": "crab"})
    assert again.status_code == 409
    assert again.json() == {"error": "Ann has meanwhile decided: bee; that stays"}
    assert client.post("/api/undo", json={}).json() == {"id": item["id"]}
    assert client.post("/api/undo", json={}).json() == {"id": None}


def test_a_photo_that_is_gone_can_still_be_decided(client):
    item = first(client)
    Path("data/photos", item["file"]).unlink()
    answer = client.get("/api/photo/0/large")
    assert answer.status_code == 404
    assert answer.json() == {"error": "cannot be read (No such file or directory)"}
    body = {"id": item["id"], "label": "", "seen": item["seen"]}
    assert client.post("/api/decide", json=body).status_code == 200
    assert rows_of_table()[item["file"]]["label"] == ""


def test_a_table_that_cannot_be_written_is_an_answer(client):
    item, before = first(client), TABLE.read_bytes()
    TABLE.with_name(".labels.csv.partial").symlink_to("/dev/full")
    body = {"id": item["id"], "label": "bee", "seen": item["seen"]}
    answer = client.post("/api/decide", json=body)
    assert answer.status_code == 500
    assert "labels.csv: cannot be written (No space left on device)" in answer.json()["error"]
    assert TABLE.read_bytes() == before


def test_photos_keep_their_shape(folder, start):
    Image.new("RGB", (3000, 1000), "red").save("data/photos/train/ant/00.png")
    Image.new("RGB", (30, 90), "red").save("data/photos/train/ant/01.png")
    client = TestClient(make_app(start(), hosts=HOSTS), base_url="http://127.0.0.1")
    for path, size in [("0/large", (1024, 341)), ("0/small", (320, 107)), ("1/large", (30, 90))]:
        with Image.open(io.BytesIO(client.get(f"/api/photo/{path}").content)) as image:
            assert image.size == size


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"id": 60, "label": "bee", "seen": ["ant", "", ""]}, 404, "id: found 60"),
        ({"id": -1, "label": "bee", "seen": ["ant", "", ""]}, 404, "id: found -1"),
        ({"id": "0", "label": "bee", "seen": ["ant", "", ""]}, 422, "id: Input should be a valid"),
        ({"id": 0, "label": "wasp\n", "seen": ["ant", "", ""]}, 422, "label: found 'wasp\\n'"),
        ({"id": 0, "label": "bee", "seen": ["ant"]}, 422, "seen: allowed: label, reviewed_by"),
        ({"id": 0, "label": "bee"}, 422, "seen: Field required"),
    ],
)
def test_bad_decisions(body, status, message, client):
    answer = client.post("/api/decide", json=body)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    assert {row["reviewed_at"] for row in rows_of_table().values()} == {""}


def test_other_websites_and_other_hosts_are_refused(client):
    item = first(client)
    body = {"id": item["id"], "label": "bee", "seen": item["seen"]}
    evil = {"origin": "http://evil.example"}
    assert client.post("/api/decide", json=body, headers=evil).status_code == 403
    assert client.post("/api/undo", json={}, headers=evil).status_code == 403
    # What a form of another website can send without asking.
    form = client.post("/api/skip", content='{"id": 0}', headers={"content-type": "text/plain"})
    assert form.status_code == 415
    assert client.get("/api/queue?count=1", headers={"host": "evil.example"}).status_code == 400
    large = client.post("/api/decide", content=b" " * 200_000, headers=JSON)
    assert large.status_code == 413
    assert {row["reviewed_at"] for row in rows_of_table().values()} == {""}


@pytest.mark.parametrize(
    "path",
    [
        "/api/photo/-1/large",
        "/api/photo/60/large",
        "/api/photo/0/huge",
        "/api/photo/..%2f..%2fparams.yaml/large",
        "/../app.py",
        "/%2e%2e/app.py",
        "/..%2fapp.py",
    ],
)
def test_no_path_leads_to_another_file(path, client):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("query", ["", "count=0", "count=1000", "count=x", "count=1&first=60"])
def test_bad_queues(query, client):
    assert client.get(f"/api/queue?{query}").status_code == 422


def test_an_empty_queue(folder, start):
    write_audit([])
    client = TestClient(make_app(start(), hosts=HOSTS), base_url="http://127.0.0.1")
    assert client.get("/api/queue?count=4").json() == {
        "items": [],
        "waiting": 0,
        "total": 0,
        "by_class": {},
    }
