"""Fixtures: a tiny saved classifier, and a server for a classifier."""

import threading
import time

import pytest
from bundles import bundle_of

from fieldguide.network.bundle import save_bundle


@pytest.fixture(scope="session")
def make_classifier_folder(tmp_path_factory):
    """Saves a classifier with any classes in a project of its own; returns its folder."""

    def make(classes):
        folder = tmp_path_factory.mktemp("project") / "models" / "classifier"
        save_bundle(bundle_of(classes), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def classifier_folder(store, make_classifier_folder):
    """A saved classifier with the classes of the store: ant, bee and crab."""
    return make_classifier_folder(store.classes)


@pytest.fixture
def start(tmp_path):
    """Serves a classifier on this machine until the test ends; returns the port."""
    # Imported here, because other tests of this folder do not need these packages.
    import uvicorn  # noqa: PLC0415

    from fieldguide.inference.card import make_card  # noqa: PLC0415
    from fieldguide.inference.server import config_of, listen, make_app  # noqa: PLC0415

    running = []

    def run(classifier, *, hosts=("localhost", "127.0.0.1", "[::1]"), model=tmp_path / "none"):
        card = make_card(classifier, model)
        listener = listen("127.0.0.1", 0)
        server = uvicorn.Server(config_of(make_app(classifier, card, hosts=hosts)))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        running.append((server, thread, listener))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return listener.getsockname()[1]

    yield run
    for server, thread, listener in running:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        listener.close()
