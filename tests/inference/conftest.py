"""A tiny saved classifier, served, and a browser."""

import threading
import time

import pytest
import torch

from fieldguide.data.transforms import Preprocessing
from fieldguide.models.bundle import Bundle, save_bundle
from fieldguide.models.cnn import CNN
from fieldguide.params import CNNParams


def bundle_of(classes):
    """A CNN of 16 × 16 pixels with random weights."""
    architecture = CNNParams(
        conv_layers=2,
        first_layer_filters=4,
        filter_org=2.0,
        kernel_size=3,
        activation="relu",
        batch_norm=True,
        num_neurons_dense=8,
        dropout=0.0,
    )
    torch.manual_seed(0)
    net = CNN(architecture, image_size=16, num_classes=len(classes))
    with torch.no_grad():
        net.get_classifier().weight.mul_(20)  # answers differ from photo to photo
    return Bundle(
        net=net.eval(),
        architecture=architecture,
        classes=classes,
        image_size=16,
        resize="crop",
        preprocessing=Preprocessing(16, "bilinear", mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 0.3]),
        val_acc=0.625,
        started_from="none",
    )


@pytest.fixture(scope="session")
def make_classifier_folder(tmp_path_factory):
    """Saves a classifier of any classes."""

    def make(classes):
        folder = tmp_path_factory.mktemp("project") / "models" / "classifier"
        save_bundle(bundle_of(classes), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def classifier_folder(store, make_classifier_folder):
    """The saved classifier of the store's classes: ant, bee and crab."""
    return make_classifier_folder(store.classes)


@pytest.fixture
def start(tmp_path):
    """Serves a classifier on loopback, in a thread, until the test ends; returns the port."""
    # Here, because other tests of this folder do without these packages.
    import uvicorn  # noqa: PLC0415

    from fieldguide.inference.card import make_card  # noqa: PLC0415
    from fieldguide.inference.server import config_of, listen, make_app  # noqa: PLC0415

    running = []

    def run(classifier, *, hosts=("localhost", "127.0.0.1", "::1"), metrics=None):
        card = make_card(classifier, metrics or tmp_path / "none.json")
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
