"""Train a classifier on a prepared store and save the weights of the best epoch."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple, cast

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.model_summary.model_summary import summarize
from torch import nn

from fieldguide.core.errors import TrainingError, first_line, is_out_of_memory
from fieldguide.core.files import folder_md5, write_json, write_text
from fieldguide.core.params import ModelParams, TrainParams, epoch_size
from fieldguide.core.store import Store
from fieldguide.network.batches import WEIGHTS, derive_seed
from fieldguide.network.bundle import Bundle, save_bundle
from fieldguide.network.cnn import CNN
from fieldguide.network.interface import output_layers
from fieldguide.training.callbacks import (
    MONITOR,
    Averaging,
    BestWeights,
    History,
    Prune,
    ResumableEarlyStopping,
)
from fieldguide.training.environment import describe_environment
from fieldguide.training.finetune import Head, count_parameters, freeze
from fieldguide.training.initial import InitialNetwork, check_size, initial_network
from fieldguide.training.loaders import make_loaders
from fieldguide.training.memory import keep_freed_memory
from fieldguide.training.module import ClassifierModule, make_mix
from fieldguide.training.processes import check_launcher, joined
from fieldguide.training.resume import (
    CHECKPOINT,
    AtomicCheckpointIO,
    code_sha256,
    project_root,
    readable_checkpoint,
    resume_folder,
    resume_key,
)
from fieldguide.training.shared_layers import RankSlice, share_layers
from fieldguide.training.trial import Channel


class Outputs(NamedTuple):
    """The paths that `train` writes to."""

    bundle: Path
    metrics: Path  # DVCLive's folder
    curves: Path  # CSV
    summary: Path
    environment: Path


def train(
    params: TrainParams,
    model: ModelParams,
    *,
    store: Store,
    outputs: Outputs,
    channel: Channel | None = None,
) -> dict[str, float | str]:
    """Train, or resume an interrupted run of the very same training, and write the outputs.

    Args:
        params: how to train.
        model: what to train.
        store: photos to train on.
        outputs: where to write.
        channel: to the sweep whose trial this is; the sweep may stop it early.

    Returns:
        Epochs, images per second and DVC's hash of the bundle, for metrics/timing.json.

    Raises:
        TrainingError: the loss is not finite, memory runs out, or the machine has no such device.
    """
    check_launcher(params)
    keep_freed_memory()
    initial = _build(params, model, store)
    history, best, callbacks = _make_callbacks(initial, params, model, outputs, channel)
    parameters = count_parameters(initial.net)  # now, because `gradual` freezes more in some epochs
    files = AtomicCheckpointIO()
    trainer = _make_trainer(params, callbacks, model.finetune, files)
    is_main = trainer.is_global_zero
    if is_main:
        _summarize(initial, params, outputs.summary, classes=len(store.classes))
    rank_slice = RankSlice() if trainer.world_size > 1 else None
    module = _make_module(initial, params, model, classes=len(store.classes), rank_slice=rank_slice)
    environment = describe_environment(trainer.strategy.root_device)
    key, features, facts = _keys(params, model, store, initial, environment)
    with (
        _failures(outputs if is_main else None, params),
        joined(trainer, facts | {"FIELDGUIDE_TRIAL": channel is not None}),
        resume_folder(project_root(), key) if is_main else nullcontext() as folder,
    ):
        checkpoint = None
        if folder is not None:
            checkpoint = readable_checkpoint(folder)
            # Lightning sends it to the other processes.
            cast("ModelCheckpoint", trainer.checkpoint_callback).dirpath = str(folder)
        files.content = trainer.strategy.broadcast(checkpoint)
        resume = CHECKPOINT if files.content is not None else None
        loaders = make_loaders(trainer, store, params, initial, features)
        trainer.fit(module, *loaders, ckpt_path=resume, weights_only=True)
        if not is_main:
            return {}
        module.load_state_dict(best.weights)
        write_json(outputs.environment, environment)
        history.finish(parameters)
        score = history.rows[history.best_epoch - 1].get(MONITOR)
        save_bundle(_bundle(initial, model, store, val_acc=score), outputs.bundle)
    why = f"{MONITOR} {score:.4f}" if score is not None else "the last, trained on all photos"
    print(f"Kept epoch {history.best_epoch} of {len(history.rows)}: {why}")
    images = loaders[0].order.photos * len(history.rows)
    return {
        "epochs_run": len(history.rows),
        "images_per_second": round(images / sum(history.seconds), 1),
        # Tells which bundle the seconds belong to: DVC's run cache restores one without training.
        "model": folder_md5(outputs.bundle),
    }


def _build(params: TrainParams, model: ModelParams, store: Store) -> InitialNetwork:
    """Build the network and try the input size of every epoch."""
    torch.manual_seed(derive_seed(params.seed, WEIGHTS))
    initial = initial_network(model, store)
    if not model.head_only:  # features are of photos of one size
        full, epochs = initial.preprocessing.size, params.epochs
        sizes = {epoch_size(full, params.start_size, k, of=epochs) for k in range(epochs)}
        for size in sorted(sizes - {full}):
            check_size(initial.net, model, size)
    initial.net.to(memory_format=torch.channels_last)
    return initial


def _make_callbacks(
    initial: InitialNetwork,
    params: TrainParams,
    model: ModelParams,
    outputs: Outputs,
    channel: Channel | None,
) -> tuple[History, BestWeights, list[L.Callback]]:
    """Freeze the layers that are not trained, and make all callbacks, two of which `train` reads.

    Lightning runs the checkpoint's last, so that the checkpoint has what the others recorded.
    """
    averaging = Averaging(decay=params.ema_decay) if params.ema_decay > 0 else None
    history = History(outputs.metrics, outputs.curves, validated=not params.train_on_val)
    best = BestWeights(history, averaging)
    callbacks = [*freeze(initial.net, model, epochs=params.epochs), averaging, history, best]
    if channel is not None:
        callbacks.append(Prune(channel, history))
    if not params.train_on_val:
        callbacks.append(ResumableEarlyStopping(MONITOR, mode="max", patience=params.patience))
    saver = ModelCheckpoint(
        filename=Path(CHECKPOINT).stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    return history, best, [callback for callback in (*callbacks, saver) if callback is not None]


def _keys(
    params: TrainParams,
    model: ModelParams,
    store: Store,
    initial: InitialNetwork,
    environment: dict[str, object],
) -> tuple[str, Path | None, dict[str, object]]:
    """Hash what a training depends on.

    Returns:
        The key of its checkpoint; the folder of the features, None if they are not used; and what
        must be equal in all processes, by the name that a user knows.
    """
    dataset = store.description_file
    inputs: dict[str, object] = {
        str(dataset): hashlib.sha256(dataset.read_bytes()).hexdigest(),
        f"models/weights/{model.weights}": initial.origin,
        "Python or library": [environment["python"], environment["libraries"]],
        "src/fieldguide": code_sha256(),
    }
    settings = {"params.yaml": [params.model_dump(), model.model_dump()]}
    details = (environment, vars(initial.preprocessing))
    features = None
    if model.head_only:
        key = resume_key(inputs, model.backbone, *details)
        features = project_root() / ".fieldguide" / "features" / key
    return resume_key(inputs, settings, *details), features, inputs | settings


@contextmanager
def _failures(outputs: Outputs | None, params: TrainParams) -> Iterator[None]:
    """If the block fails, delete what it has written, and explain what the user can change.

    Args:
        outputs: what to delete; None in a process that writes nothing.
        params: of the training.
    """
    try:
        yield
    except BaseException as err:
        if outputs is not None:
            shutil.rmtree(outputs.metrics, ignore_errors=True)
            for file in (outputs.curves, outputs.summary, outputs.environment):
                file.unlink(missing_ok=True)
        if (explanation := _explanation(err, params)) is not None:
            raise TrainingError(explanation) from err
        if isinstance(err, SystemExit):  # Lightning raises it on Ctrl-C
            raise KeyboardInterrupt from err
        raise


def _explanation(err: BaseException, params: TrainParams) -> str | None:
    if is_out_of_memory(err):
        return (
            f"train.batch_size: {params.batch_size} needs more memory than there is, with this "
            "model and data.image_size; try half of it"
        )
    if type(err).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return (
            f"train.compile: true does not work here ({first_line(err)}); it needs a C++ "
            "compiler, and on a GPU Triton; allowed here: false"
        )
    if "more than 1 value per channel" in str(err):  # what batch norm says of a single pixel
        return (
            f"train.batch_size: {params.batch_size} leaves batch norm a single pixel; allowed "
            "here: 2 or more, or for the CNN model.batch_norm: false"
        )
    return None


def _bundle(
    initial: InitialNetwork, model: ModelParams, store: Store, *, val_acc: float | None
) -> Bundle:
    return Bundle(
        net=initial.net,
        architecture=model.architecture,
        classes=store.classes,
        image_size=store.image_size,
        resize=store.resize,
        preprocessing=initial.preprocessing,
        val_acc=val_acc,
        started_from=initial.origin,
    )


def _make_module(
    initial: InitialNetwork,
    params: TrainParams,
    model: ModelParams,
    *,
    classes: int,
    rank_slice: RankSlice | None,
) -> ClassifierModule:
    """Wrap the network, or only its head, for training. The summary must be written before."""
    net: nn.Module = initial.net
    if model.head_only:
        net = Head(output_layers(initial.net)[0], model.dropout)
    if rank_slice is not None:
        share_layers(net, rank_slice)
    if params.compile:
        # In place, so that names of weights stay. The mode for a GPU uses CUDA graphs.
        net.compile(mode="reduce-overhead" if torch.cuda.is_available() else "default")
    decay = model.layer_decay if model.finetune == "full" and model.weights != "none" else 1.0
    return ClassifierModule(
        net,
        params,
        input_size=initial.preprocessing.size,
        num_classes=classes,
        layer_decay=decay,
        # The head sees features, which cannot be mixed like photos.
        mix=None if model.head_only else make_mix(params, num_classes=classes),
        rank_slice=rank_slice,
    )


def _summarize(initial: InitialNetwork, params: TrainParams, path: Path, *, classes: int) -> None:
    """Print and write every layer of the CNN, or the blocks of a model of timm."""
    module = ClassifierModule(
        initial.net, params, input_size=initial.preprocessing.size, num_classes=classes
    )
    summary = str(summarize(module, max_depth=-1 if isinstance(initial.net, CNN) else 3))
    print(summary)
    write_text(path, summary + "\n")


def _make_trainer(
    params: TrainParams, callbacks: list[L.Callback], finetune: str, files: AtomicCheckpointIO
) -> L.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    # In deterministic mode PyTorch also fills every new tensor with NaN, to show reads of memory
    # that nothing has written. That takes about a tenth of a step and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    watched = sys.stderr.isatty()
    if watched:
        callbacks = [*callbacks, TQDMProgressBar(leave=False)]
    # By default DDP waits for every gradient, but frozen blocks have none.
    ddp = DDPStrategy(find_unused_parameters=finetune == "gradual")
    try:
        trainer = L.Trainer(
            accelerator=params.accelerator,
            devices=params.devices,
            precision=params.precision,
            num_nodes=params.num_nodes,
            strategy=ddp if params.processes > 1 or params.strategy == "ddp" else "auto",
            max_epochs=params.epochs,
            callbacks=callbacks,
            gradient_clip_val=params.gradient_clipping or None,
            # Every operation of the CNN is deterministic. PyTorch is not sure of some (the gradient
            # of pooling on CUDA, whose windows never overlap here), hence a warning, not an error.
            deterministic="warn",
            logger=False,
            plugins=[files],
            enable_progress_bar=watched,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, RuntimeError, ValueError) as err:
        raise TrainingError(
            f"train.accelerator: {params.accelerator}, train.devices: {params.devices}, "
            f"train.precision: {params.precision}: not possible on this machine ({err})"
        ) from err
    if params.precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise TrainingError(
            'train.precision: "16-mixed" needs a GPU, and this machine has none; allowed here: '
            '"32", "bf16-mixed"'
        )
    return trainer
