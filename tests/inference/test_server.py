"""The server, over real sockets: its answers, and that no request makes it fail."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from uploaded import huge_jpeg, huge_png, picture, write_results

from fieldguide.core.errors import RevisionError
from fieldguide.inference import uploads
from fieldguide.inference.card import make_card
from fieldguide.inference.classifier import Classifier
from fieldguide.inference.torch_classifier import TorchClassifier
from fieldguide.network.bundle import Calibration, save_bundle

ROOT = Path(__file__).resolve().parents[2]
PHOTO = picture("JPEG")
MB = 1_000_000
TYPE = "multipart/form-data; boundary=b"


class Even(Classifier):
    """Gives the same answer for every photo, has no bundle and cannot explain its answers."""

    def __init__(self):
        super().__init__(["a", "b", "c", "d"], image_size=8, resize="crop")

    def probabilities(self, pixels):
        return np.repeat([[0.125, 0.5, 0.25, 0.125]], len(pixels), axis=0)


class Failing(Even):
    """Fails because of a programming error."""

    def probabilities(self, pixels):
        raise RuntimeError("secret detail")


@pytest.fixture(scope="session")
def classifier(classifier_folder):
    return TorchClassifier(classifier_folder, "cpu")


@pytest.fixture
def port(start, classifier):
    return start(classifier)


def call(port, method, path, body=None, **headers):
    """Send one request; return status, headers and body, parsed if it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.headers["Content-Type"] == "application/json":
        answer = json.loads(answer)
    return response.status, response.headers, answer


def post(port, path, body=b"", **headers):
    """Send a POST; return status and body."""
    status, _, answer = call(port, "POST", path, body, **headers)
    return status, answer


def form(*parts, end=b"--b--\r\n"):
    """Make the body of a form from parts (disposition, content)."""
    return (
        b"".join(
            b"--b\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % part for part in parts
        )
        + end
    )


def alive(port):
    """True if a good photo still gets an answer."""
    return post(port, "/api/predict", PHOTO)[0] == 200


def by_hand(classifier, photo):
    """Make the answer that the API should give for a photo."""
    found = classifier.predict(photo).probabilities
    rows = [{"class": name, "probability": p} for name, p in found.items()]
    return {"classes": rows, "unsure": None}


def test_prediction_of_a_raw_body_and_of_a_form(port, classifier):
    expected = by_hand(classifier, PHOTO)
    assert sorted(row["class"] for row in expected["classes"]) == ["ant", "bee", "crab"]
    assert sum(row["probability"] for row in expected["classes"]) == pytest.approx(1)
    for kind in ("image/jpeg", "application/x-www-form-urlencoded", "text/html", ""):
        assert post(port, "/api/predict", PHOTO, Content_Type=kind) == (200, expected)
    sent = form((b'name="note"', b"hello"), (b'name="photo"; filename="x.jpg"', PHOTO))
    assert post(port, "/api/predict", sent, Content_Type=TYPE) == (200, expected)
    assert post(port, "/api/predict", iter([PHOTO[:9], PHOTO[9:]])) == (200, expected)  # chunked
    two = expected | {"classes": expected["classes"][:2]}
    assert post(port, "/api/predict?top=2", PHOTO) == (200, two)
    assert post(port, "/api/predict?top=3", PHOTO) == (200, expected)


def test_probabilities_are_exact_and_the_best_comes_first(start):
    port = start(Even())
    rows = [("b", 0.5), ("c", 0.25), ("a", 0.125), ("d", 0.125)]
    expected = [{"class": name, "probability": p} for name, p in rows]
    assert post(port, "/api/predict", PHOTO) == (200, {"classes": expected, "unsure": None})
    one = {"classes": expected[:1], "unsure": None}
    assert post(port, "/api/predict?top=1", PHOTO) == (200, one)


@pytest.mark.parametrize(("smallest", "unsure"), [(0.5, False), (0.501, True)])
def test_an_answer_below_the_smallest_confidence_is_unsure(smallest, unsure, start):
    classifier = Even()
    classifier.min_confidence = smallest
    port = start(classifier)
    status, answer = post(port, "/api/predict?top=1", PHOTO)
    expected = {"classes": [{"class": "b", "probability": 0.5}], "unsure": unsure}
    assert (status, answer) == (200, expected)
    assert call(port, "GET", "/api/model")[2]["min_confidence"] == smallest


@pytest.mark.parametrize("top", ["0", "4", "-1", "x", "", "1.5", "²", "9" * 5000])
def test_a_wrong_top_is_refused(top, port):
    path = "/api/predict?top=" + top.replace("²", "%C2%B2")
    assert post(port, path, PHOTO) == (422, {"error": f"top: found {top!r}; allowed: 1 to 3"})


@pytest.mark.parametrize(
    "name",
    [b"._photo.jpg", b"Thumbs.db", b"DCIM/.DS_Store", b"@eaDir/a.jpg"],
)
def test_a_file_that_a_camera_or_disk_leaves_behind_is_no_photo(name, port):
    body = form((b'name="photo"; filename="' + name + b'"', PHOTO))
    status, answer = post(port, "/api/predict", body, Content_Type=TYPE)
    assert (status, "leaves behind, not a photo" in answer["error"]) == (422, True), answer


def test_explanation(port, classifier):
    for query, label in (("", None), ("?class=ant", "ant"), ("?class=crab", "crab")):
        status, headers, answer = call(port, "POST", f"/api/explain{query}", PHOTO)
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert answer == classifier.explain(PHOTO, label)
    assert post(port, "/api/explain?class=<b>", PHOTO) == (
        422,
        {"error": "class: found '<b>'; allowed: those of /api/model"},
    )
    status, answer = post(port, "/api/explain", b"text")
    assert (status, answer["error"]) == (422, "photo: unreadable (cannot identify image file)")
    status, answer = post(port, "/api/explain", huge_png(20_000, 10_000))
    assert (status, "allowed: 178,956,970" in answer["error"]) == (422, True)


def test_card_of_a_tested_bundle(start, classifier, classifier_folder, tmp_path):
    model = shutil.copytree(classifier_folder, tmp_path / "models" / "classifier")
    write_results(model, hits=701, photos=1000)
    expected = {
        "architecture": "cnn",
        "classes": ["ant", "bee", "crab"],
        "image_size": 16,
        "input_size": 16,
        "val_acc": 0.625,
        "started_from": "none",
        # Wilson's formula for 701 of 1,000, computed by hand.
        "test": {
            "photos": 1000,
            "acc": 0.701,
            "acc_low": pytest.approx(0.671899, abs=1e-6),
            "acc_high": pytest.approx(0.728562, abs=1e-6),
        },
        "min_confidence": None,
        "trust": "70.0% of photos can be taken as they come: 95.7% of them are right (95 % "
        "interval 93.9% to 97.0%; 95% were asked for). Answers with a confidence below 83.4% "
        "are unsure",
        "explain": True,
        "max_bytes": 20_000_000,
    }
    port = start(classifier, model=model)
    assert call(port, "GET", "/api/model")[::2] == (200, expected)
    other = replace(classifier.bundle, calibration=Calibration(2.0, 0.95, None))
    save_bundle(other, model.with_name("other"))  # in the same project
    for untested in (model.with_name("other"), tmp_path / "none"):
        found = call(start(classifier, model=untested), "GET", "/api/model")[2]
        assert found == {**expected, "test": None, "trust": None}


def test_card_of_a_classifier_that_cannot_explain_its_answers(start):
    port = start(Even())
    card = call(port, "GET", "/api/model")[2]
    assert (card["explain"], card["val_acc"], card["started_from"]) == (False, None, None)
    assert (card["image_size"], card["classes"]) == (8, ["a", "b", "c", "d"])
    status, answer = post(port, "/api/explain", PHOTO)
    assert (status, "cannot explain its answers" in answer["error"]) == (404, True)


def test_results_that_were_changed_are_named(classifier, classifier_folder, tmp_path):
    model = shutil.copytree(classifier_folder, tmp_path / "models" / "classifier")
    write_results(model, hits=1, photos=2)
    (tmp_path / "metrics/test.json").write_text('{"test": {"acc": 1.0}}')
    with pytest.raises(
        RevisionError, match=r"test\.json of workspace: not the file that dvc\.lock"
    ):
        make_card(classifier, model)


def test_page_and_its_files(port):
    for path, kind in (
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ):
        status, headers, answer = call(port, "GET", path)
        assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)
        assert answer


@pytest.mark.parametrize("path", ["/none", "/api", "/page", "/../server.py", "/%2e%2e/server.py"])
def test_other_paths_are_404_as_json(path, port):
    assert call(port, "GET", path)[::2] == (404, {"error": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/predict"), ("DELETE", "/api/explain"), ("POST", "/"), ("PUT", "/api/model")],
)
def test_other_methods_are_405_as_json(method, path, port):
    status, headers, answer = call(port, method, path)
    assert (status, answer) == (405, {"error": "Method Not Allowed"})
    assert headers["Allow"]


def test_every_answer_has_the_security_headers(port, start):
    failing = start(Failing())
    for answered, method, path in (
        (port, "GET", "/"),
        (port, "GET", "/none"),
        (port, "GET", "/api/predict"),
        (port, "POST", "/api/explain"),
    ):
        check_headers(call(answered, method, path)[1])
    check_headers(call(port, "GET", "/", Host="evil.example")[1])
    check_headers(call(failing, "POST", "/api/predict", PHOTO)[1])


def check_headers(headers):
    policy = headers.get_all("Content-Security-Policy")
    assert len(policy) == 1
    assert "default-src 'self';" in policy[0]
    assert "unsafe" not in policy[0]
    assert headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert headers.get_all("Referrer-Policy") == ["no-referrer"]
    assert headers.get_all("Cross-Origin-Resource-Policy") == ["same-origin"]
    assert headers.get_all("Cache-Control") == ["no-store"]
    for name in ("Set-Cookie", "Access-Control-Allow-Origin", "Server"):
        assert headers[name] is None


def test_only_names_of_this_machine_are_served(port, start):
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "LOCALHOST"):
        assert call(port, "GET", "/api/model", Host=host)[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::1", ""):
        status, _, answer = call(port, "GET", "/api/model", Host=host)
        assert (status, answer) == (400, b"Invalid host header"), host
    public = start(Even(), hosts=["*"])
    assert call(public, "GET", "/api/model", Host="any.example")[0] == 200


def test_other_websites_cannot_post(port):
    for origin in (
        f"http://127.0.0.1:{port}",
        f"https://127.0.0.1:{port}",
    ):  # https: behind a proxy
        assert post(port, "/api/predict", PHOTO, Origin=origin)[0] == 200
    for origin in ("http://evil.example", "null", "", f"http://127.0.0.1:{port + 1}"):
        status, answer = post(port, "/api/predict", PHOTO, Origin=origin)
        assert (status, "another website" in answer["error"]) == (403, True), origin


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", "image/jpeg", "no photo: send one"),
        (b"", TYPE, "no file in the form"),
        (b"--b--\r\n", TYPE, "no file in the form"),
        (form(), "multipart/form-data", "Missing boundary"),
        (PHOTO, TYPE, "Invalid multipart"),
        (PHOTO + b"--b--", TYPE, "Invalid multipart"),
        (PHOTO, "multipart/form-data; boundary=" + "b" * 300, "Invalid multipart"),
        (form((b'name="photo"', b"text")), TYPE, "no file in the form"),
        (form((b'name="photo"; filename=""', b"")), TYPE, "no photo: send one"),
        (form((b"x", PHOTO)), TYPE, "must be provided"),
        (form(*[(b'name="f"; filename="x"', PHOTO)] * 2), TYPE, "Too many files"),
        (form(*[(b'name="f"', b"")] * 11), TYPE, "Too many fields"),
        (form((b'name="f"', bytes(2 * MB))), TYPE, "maximum size"),
        (b"--b\r\n" + b"x" * MB + b"--b--", TYPE, "Invalid multipart"),
        (form((b'name="\xff\x80"', b"\xff")), TYPE + "; charset=hex", "no file in the form"),
        (form((b'name="\xff\x80"', b"\xff")), TYPE + "; charset=idna", "no file in the form"),
        (form((b'name="\xff."', b".")), TYPE + "; charset=punycode", "the form is broken"),
    ],
)
def test_empty_and_broken_bodies_are_400(body, kind, message, port):
    status, answer = post(port, "/api/predict", body, Content_Type=kind)
    assert (status, message in answer["error"]) == (400, True), answer
    assert alive(port)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"This is a text.", "unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable"),
        (PHOTO[: len(PHOTO) // 2], "truncated"),
        (picture("PNG")[:200], "unreadable"),
        (bytes(MB), "unreadable"),
        (huge_png(20_000, 10_000), "20000×10000 pixels do not fit"),
        (huge_jpeg(65_500, 65_500), "65500×65500 pixels do not fit"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable"),
    ],
    ids=["text", "svg", "half JPEG", "half PNG", "zeros", "PNG", "JPEG", "EPS"],
)
def test_a_body_that_is_no_picture_or_too_large_is_422(body, message, port):
    status, answer = post(port, "/api/predict", body)
    assert (status, message in answer["error"]) == (422, True), answer
    assert "Traceback" not in answer["error"]
    assert alive(port)


@pytest.mark.parametrize("path", ["/api/predict", "/api/explain"])
@pytest.mark.parametrize("kind", ["image/jpeg", TYPE])
def test_more_than_20_mb_is_413(path, kind, port):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n".encode()
    chunk = b"%x\r\n%s\r\n" % (MB, form((b'name="f"; filename="x"', b""), end=b"").ljust(MB, b"\0"))
    # With a Content-Length: refused before the first byte, so that `curl` sends none.
    answer, _ = exchange(port, head + b"Content-Length: 50000000\r\n\r\n", [])
    assert answer.startswith(b"HTTP/1.1 413 ")
    # In chunks: refused as soon as they are too many.
    answer, sent = exchange(port, head + b"Transfer-Encoding: chunked\r\n\r\n", [chunk] * 50)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 40
    assert alive(port)


def test_20_mb_are_accepted(port, classifier):
    padded = PHOTO.ljust(20 * MB, b"\0")  # bytes behind a JPEG are ignored
    expected = by_hand(classifier, PHOTO)
    assert post(port, "/api/predict", padded) == (200, expected)
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000001\r\n\r\n"
    assert exchange(port, head, [])[0].startswith(b"HTTP/1.1 413 ")
    frame = len(form((b'name="f"; filename="x"', b"")))
    sent = form((b'name="f"; filename="x"', PHOTO.ljust(20 * MB - frame, b"\0")))
    assert len(sent) == 20 * MB
    assert post(port, "/api/predict", sent, Content_Type=TYPE) == (200, expected)


def exchange(port, head, chunks):
    """Send until the server closes; return its answer and the number of chunks that it took."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head)
        sent = 0
        try:
            for chunk in chunks:
                client.sendall(chunk)
                sent += 1
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while received := client.recv(65_536):
                answer += received
        except ConnectionResetError:  # the server closed before it read all of our bytes
            pass
        return answer, sent


def test_a_wrong_content_length_is_answered(port):
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    short = head + b"Content-Length: 10\r\n\r\n" + PHOTO
    assert exchange(port, short, [])[0].startswith(b"HTTP/1.1 422 ")
    for length in (b"-1", b"x", b"1" + b"0" * 30):
        answer, _ = exchange(port, head + b"Content-Length: " + length + b"\r\n\r\n", [])
        assert answer[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 413 "), length
    assert alive(port)


def test_clients_that_disconnect_leave_no_trace(port, caplog):
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    for path in (b"/api/predict", b"/api/explain"):
        for part in (b"", PHOTO, bytes(900_000)):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(head.replace(b"/api/predict", path) + part)
    for _ in range(20):  # these disconnect before the answer
        with socket.create_connection(("127.0.0.1", port)) as client:
            sent = head.replace(b"1000000", b"%d" % len(PHOTO)) + PHOTO
            client.sendall(sent)
    assert alive(port)
    assert [record.getMessage() for record in caplog.records] == []


def test_a_photo_that_never_arrives_is_408(port, monkeypatch):
    monkeypatch.setattr(uploads, "UPLOAD_SECONDS", 0.3)
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"
    answer, _ = exchange(port, head, [])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"took too long" in answer


def test_parallel_predictions_equal_sequential_ones(port, classifier):
    photos = [picture("PNG", seed=seed) for seed in range(8)]
    expected = [by_hand(classifier, photo) for photo in photos]
    assert len({json.dumps(one) for one in expected}) == 8
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            found = list(pool.map(lambda photo: post(port, "/api/predict", photo), photos))
            assert found == [(200, one) for one in expected]


def test_the_page_answers_while_photos_are_classified(start):
    class Slow(Even):
        running = most = 0

        def probabilities(self, pixels):
            Slow.running += 1
            Slow.most = max(Slow.most, Slow.running)
            time.sleep(0.5)
            Slow.running -= 1
            return super().probabilities(pixels)

    port = start(Slow())
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(post, port, "/api/predict", PHOTO) for _ in range(6)]
        while not Slow.running:
            time.sleep(0.01)
        assert call(port, "GET", "/api/model")[0] == 200
        assert call(port, "GET", "/")[0] == 200
        assert not all(one.done() for one in answers)
        assert [one.result()[0] for one in answers] == [200] * 6
    assert Slow.most == 2


def test_a_programming_error_is_500_without_details(start, caplog):
    port = start(Failing())
    expected = {"error": "the server failed; its terminal says why"}
    assert post(port, "/api/predict", PHOTO) == (500, expected)
    assert call(port, "GET", "/api/model")[0] == 200
    deadline = time.monotonic() + 60
    while not caplog.records and time.monotonic() < deadline:  # the log is written after the answer
        time.sleep(0.01)
    assert "secret detail" in caplog.text


@pytest.fixture
def fieldguide(classifier_folder):
    """Starts `fieldguide serve` in the folder of a project."""
    started = []

    def run(*arguments, before=""):
        # A shell starts background processes with Ctrl-C ignored; this enables it again.
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"{before}\nfrom fieldguide.cli import main; main()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", *arguments],
            cwd=classifier_folder.parents[1],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(fieldguide):
    process = fieldguide("--port", "0")
    line = process.stdout.readline()
    port = int(re.fullmatch(r"Serving http://127\.0\.0\.1:(\d+)  \(Ctrl-C stops\)\n", line)[1])
    assert post(port, "/api/predict?top=1", PHOTO)[0] == 200
    assert call(port, "GET", "/api/model", Host="evil.example")[0] == 400
    second = fieldguide("--port", str(port))
    output, error = second.communicate(timeout=120)
    assert (second.returncode, output) == (1, "")
    assert error == (
        f"fieldguide: --host 127.0.0.1 --port {port}: cannot listen there (Address already in "
        "use); choose another --port, or 0 for one that is free\n"
    )
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output.strip(), error) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["uvicorn", "python_multipart"])
def test_without_the_extra_the_message_names_it(missing, fieldguide):
    process = fieldguide(before=f"sys.modules[{missing!r}] = None")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in error
    assert error.endswith("is not installed: pip install 'fieldguide[serve]'\n")


@pytest.mark.slow
def test_a_missing_classifier_and_an_unknown_host_are_errors(fieldguide):
    first, second = fieldguide("--model", "none"), fieldguide("--host", "no.such.invalid")
    _, error = first.communicate(timeout=120)
    assert (first.returncode, error.startswith("fieldguide: --model none: no such folder")) == (
        1,
        True,
    )
    _, error = second.communicate(timeout=120)
    assert second.returncode == 1
    assert "--host no.such.invalid --port 8000: cannot listen there" in error
    assert "Traceback" not in error


def test_silent_connections_do_not_block_others(port):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        assert call(port, "GET", "/api/model")[0] == 200
        assert post(port, "/api/predict?top=1", PHOTO)[0] == 200
    finally:
        for one in silent:
            one.close()
