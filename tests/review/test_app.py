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


def decision(item, label):
    return {"id": item["id"], "label": label, "seen": item["seen"]}


def decide(client, *decisions, **kwargs):
    return client.post("/api/decide", json={"decisions": decisions}, **kwargs)


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
    assert decide(client, decision(item, "bee")).json() == {"stay": []}
    assert rows_of_table()[item["file"]]["label"] == "bee"
    stay = f"{item['file']}: the table now says: bee, decided by Ann; that stays"
    assert decide(client, decision(item, "crab")).json() == {"stay": [stay]}
    assert client.post("/api/undo", json={}).json() == {"ids": [item["id"]], "stay": 0}
    assert client.post("/api/undo", json={}).json() == {"ids": [], "stay": 0}


@pytest.mark.parametrize(
    ("old", "new", "now"),
    [
        ("ant,train,,", "crab,train,,", "crab"),
        ("ant,train,,", ",train,,", "no class"),
        ("ant,train,,", ",train,Bob,now", "not usable, decided by Bob"),
        ("train/ant/00.png,ant,train,,\n", "", "no class"),
    ],
)
def test_a_row_that_was_changed_by_hand_stays(old, new, now, client):
    item = first(client)
    TABLE.write_text(TABLE.read_text().replace(old, new, 1))
    before = TABLE.read_bytes()
    answer = decide(client, decision(item, "bee"))
    assert answer.json()["stay"] == [f"{item['file']}: the table now says: {now}; that stays"]
    assert TABLE.read_bytes() == before


def test_several_decisions_are_undone_together_and_one_that_is_refused_stops_no_other(client):
    items = client.get("/api/queue?count=3").json()["items"]
    TABLE.write_text(TABLE.read_text().replace("01.png,ant,", "01.png,crab,", 1))
    before = TABLE.read_bytes()
    answer = decide(client, *(decision(item, "bee") for item in items))
    assert [text.split(":")[0] for text in answer.json()["stay"]] == ["train/ant/01.png"]
    found = {name: row["label"] for name, row in rows_of_table().items()}
    assert [found[item["file"]] for item in items] == ["bee", "crab", "bee"]
    assert client.post("/api/undo", json={}).json() == {"ids": [0, 2], "stay": 0}
    assert TABLE.read_bytes() == before


def test_a_class_that_is_added_by_hand_can_be_chosen(client):
    item = first(client)
    TABLE.write_text(TABLE.read_text().replace("01.png,ant,", "01.png,wasp,", 1))
    assert client.get("/api/queue?count=1").json()["classes"] == ["ant", "bee", "crab", "wasp"]
    assert decide(client, decision(item, "wasp")).json() == {"stay": []}
    assert rows_of_table()[item["file"]]["label"] == "wasp"
    client.post("/api/undo", json={})
    TABLE.write_text(TABLE.read_text().replace("01.png,wasp,", "01.png,ant,", 1))
    assert decide(client, decision(item, "wasp")).status_code == 422
    assert rows_of_table()[item["file"]]["label"] == "ant"


def test_a_class_without_training_photos_is_a_warning(client):
    items = client.get("/api/queue?count=20").json()["items"]
    decide(client, *(decision(item, "bee") for item in items[1:]))
    assert client.get("/api/queue?count=1").json()["warnings"] == []
    decide(client, decision(items[0], "bee"))
    warning = "Class 'ant' has 0 training photos: `prepare` needs 1 or more."
    assert client.get("/api/queue?count=1").json()["warnings"] == [warning]


def test_a_photo_that_is_gone_can_still_be_decided(client):
    item = first(client)
    Path("data/photos", item["file"]).unlink()
    answer = client.get("/api/photo/0/large")
    assert answer.status_code == 404
    assert answer.json() == {"error": "cannot be read (No such file or directory)"}
    assert decide(client, decision(item, "")).status_code == 200
    assert rows_of_table()[item["file"]]["label"] == ""


def test_a_table_that_cannot_be_written_is_an_answer(client):
    item, before = first(client), TABLE.read_bytes()
    TABLE.with_name(".labels.csv.partial").symlink_to("/dev/full")
    answer = decide(client, decision(item, "bee"))
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
        ({"id": "0", "label": "bee", "seen": ["ant", "", ""]}, 422, "0.id: Input should be a val"),
        ({"id": 0, "label": "wasp\n", "seen": ["ant", "", ""]}, 422, "label: found 'wasp\\n'"),
        ({"id": 0, "label": "bee", "seen": ["ant"]}, 422, "seen.1: Field required"),
        ({"id": 0, "label": "bee"}, 422, "seen: Field required"),
    ],
)
def test_bad_decisions(body, status, message, client):
    answer = decide(client, body)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    assert {row["reviewed_at"] for row in rows_of_table().values()} == {""}


def test_other_websites_and_other_hosts_are_refused(client):
    item = first(client)
    evil = {"origin": "http://evil.example"}
    assert decide(client, decision(item, "bee"), headers=evil).status_code == 403
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


@pytest.mark.parametrize("query", ["", "count=0", "count=1000", "count=x", "count=1&first=x"])
def test_bad_queues(query, client):
    assert client.get(f"/api/queue?{query}").status_code == 422
    assert client.get("/api/queue?count=1&first=60").status_code == 404


def test_an_empty_queue(folder, start):
    write_audit([])
    client = TestClient(make_app(start(), hosts=HOSTS), base_url="http://127.0.0.1")
    assert client.get("/api/queue?count=4").json() == {
        "items": [],
        "waiting": 0,
        "total": 0,
        "by_class": {},
        "classes": ["ant", "bee", "crab"],
        "warnings": [],
    }
