"""With data.engine: ray, a real cluster on this machine makes the same store."""

import time

import pytest
from ray_cluster import Cluster

from fieldguide.core.errors import ClusterError
from fieldguide.prepare import nodes
from fieldguide.prepare.chunks import Failure, decode_chunk
from fieldguide.prepare.nodes import decode_on_nodes
from fieldguide.prepare.prepare import prepare

pytestmark = pytest.mark.slow


@pytest.fixture
def params(make_params):
    return make_params(data={"image_size": 16}, model={"conv_layers": 2}).data


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A cluster with one node of two cores."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start("head", cpus=2)
        yield made
    finally:
        made.close()


@pytest.fixture
def joined(head, monkeypatch):
    """The same cluster; this process may connect to it."""
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    for name in [name for name in head.env if name.startswith("RAY_")]:
        monkeypatch.setenv(name, head.env[name])
    return head


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.usefixtures("joined")
def test_the_store_is_the_same_bytes_as_without_a_cluster(make_params, make_photos, pack, tmp_path):
    (tmp_path / "photos").mkdir()
    files = make_photos(each=70) | {"ant/broken.png": b"broken", "bee/broken.png": b"broken"}
    pack(tmp_path / "photos" / "a.zip", files)
    pack(tmp_path / "photos" / "b.tar.gz", make_photos(each=30, seed=1))  # read sequentially
    for engine in ("local", "ray"):
        data = {"archive": str(tmp_path / "photos"), "image_size": 16, "engine": engine}
        params = make_params(data=data | {"max_unreadable": 0.1}, model={"conv_layers": 2})
        prepare(params.data, tmp_path / engine)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_a_chunk_of_a_node_that_dies_is_decoded_by_another(joined, make_photos, params):
    photos = list(make_photos(each=2, pixels=1400).values())  # large, so that decoding takes long
    joined.start("second")
    killed = []

    def chunks():
        for k, photo in enumerate(photos):
            yield [k], [photo]
            if k == 2:  # every core is decoding a chunk
                killed.extend(wait_for_decoders(joined, "second"))
                joined.kill("second")

    found = {row: decoded for (row,), (decoded,) in decode_on_nodes(chunks(), params)}
    assert killed
    assert sorted(found) == list(range(len(photos)))
    for row, decoded in found.items():
        (expected,) = decode_chunk([photos[row]], params)
        assert decoded.digest == expected.digest
        assert (decoded.pixels == expected.pixels).all()


def wait_for_decoders(cluster, node):
    """Stop the decoding processes of a node, so that they cannot finish before they are killed."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        running = [p for p in cluster.processes(node) if "ray::_decode" in " ".join(p.cmdline())]
        if running:
            for process in running:
                process.suspend()
            return running
    return []


@pytest.mark.usefixtures("joined")
def test_a_node_with_another_decoder_is_refused(monkeypatch, params):
    other = {"pillow": "1.0", "simplejpeg": "1.0"}
    monkeypatch.setattr(nodes, "_decoders", lambda: other)
    # The node imports the module without the change.
    with pytest.raises(ClusterError, match=r"node .* decodes with .*; allowed: .*'pillow': '1\.0'"):
        list(decode_on_nodes(iter([([0], [b""])]), params))


@pytest.mark.usefixtures("joined")
def test_a_photo_that_could_not_be_read_stays_a_failure(params):
    failure = Failure("unreadable", "damaged in the archive")
    ((rows, results),) = decode_on_nodes(iter([([4, 5], [failure, b""])]), params)
    assert rows == [4, 5]
    assert results == [failure, Failure("unreadable", "the file is empty")]


def test_a_missing_address_is_refused(monkeypatch, params):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(
        ClusterError, match=r"data\.engine: ray needs .* RAY_ADDRESS: found None; a"
    ):
        list(decode_on_nodes(iter([]), params))
