"""Train a classifier on a prepared store and save the best epoch's weights."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.model_summary.model_summary import summarize
from torch import nn

from fieldguide.core.errors import TrainingError, is_out_of_memory
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
    StayStopped,
    StopIfNotFinite,
)
from fieldguide.training.datamodule import StoreData
from fieldguide.training.environment import describe_environment
from fieldguide.training.features import features_folder
from fieldguide.training.finetune import Head, count_parameters, freeze
from fieldguide.training.memory import keep_freed_memory
from fieldguide.training.module import ClassifierModule, make_mix
from fieldguide.training.processes import check_launcher, from_first, joined
from fieldguide.training.resume import (
    CHECKPOINT,
    AtomicCheckpointIO,
    code_sha256,
    project_root,
    readable_checkpoint,
    resume_folder,
    resume_key,
)
from fieldguide.training.shared_layers import Part, share_layers
from fieldguide.training.start import Start, start_of, try_size
from fieldguide.training.trial import Channel


class Outputs(NamedTuple):
    """Where `train` writes."""

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
    """Fit, going on from an interrupted run of the very same training, and write the outputs.

    Args:
        params: how to train.
        model: what to train.
        store: what to train it on.
        outputs: where to write.
        channel: to the sweep that this is a trial of, and that may end it early.

    Returns:
        Epochs, images per second and DVC's hash of the bundle, for metrics/timing.json.

    Raises:
        TrainingError: the loss is not finite, memory runs out, or the machine has no such device.
    """
    _check_trial(params, channel)
    check_launcher(params)
    keep_freed_memory()
    torch.manual_seed(derive_seed(params.seed, WEIGHTS))
    start = start_of(model, store)
    if not model.head_only:
        _check_sizes(params, start)
    start.net.to(memory_format=torch.channels_last)
    validated = not params.train_on_val
    averaging = Averaging(decay=params.ema_decay) if params.ema_decay > 0 else None
    history = History(outputs.metrics, outputs.curves, validated=validated)
    best = BestWeights(averaging, validated=validated)
    # Runs after the other callbacks, so that the checkpoint holds what they have recorded.
    saver = ModelCheckpoint(
        filename=Path(CHECKPOINT).stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    prune = Prune(channel) if channel else None
    callbacks = [*freeze(start.net, model, epochs=params.epochs), averaging, history, best]
    parameters = count_parameters(start.net)  # now: by epoch, fewer may be trained
    files = AtomicCheckpointIO()
    trainer = _make_trainer(
        params, [one for one in (*callbacks, prune, saver) if one], model.finetune, files
    )
    part = Part() if trainer.world_size > 1 else None
    module = _make_module(start, params, model, classes=len(store.classes), part=part)
    first = trainer.is_global_zero
    if first:
        _summarize(start, params, outputs.summary, classes=len(store.classes))
    if part is not None:
        share_layers(module.net, part)
    if params.compile:
        # In place, so that names of weights stay, and not before the summary has run the network.
        # CUDA graphs where there is a GPU.
        module.net.compile(mode="reduce-overhead" if torch.cuda.is_available() else "default")
    environment = describe_environment(trainer.strategy.root_device)
    dataset = hashlib.sha256(store.description_file.read_bytes()).hexdigest()
    made_of = (dataset, start.origin, vars(start.preprocessing), environment, code_sha256())
    key = resume_key(params.model_dump(), model.model_dump(), *made_of)
    features = features_folder(resume_key(model.backbone, *made_of)) if model.head_only else None
    facts = {
        "params.yaml": params.model_dump_json() + model.model_dump_json(),
        str(store.description_file): dataset,
        f"models/weights/{model.weights}": start.origin,
        "Python or library": f"{environment['python']} {environment['libraries']}",
        "FIELDGUIDE_TRIAL": str(channel is not None),
    }
    with (
        _nothing_half_written(outputs if first else None),
        joined(trainer, facts),
        resume_folder(project_root(), key) if first else nullcontext() as folder,
    ):
        if folder is not None:
            saver.dirpath = str(folder)  # which Lightning tells the others
        checkpoint = readable_checkpoint(folder) if folder is not None else None
        files.content = from_first(checkpoint, trainer.strategy.root_device)
        data = StoreData(store, params, start, features)
        _fit(trainer, module, data, resume=files.content is not None)
        if not trainer.is_global_zero:
            return {}
        module.load_state_dict(best.weights)
        write_json(outputs.environment, environment)
        history.finish(pruned=bool(prune and prune.pruned), parameters=parameters)
        score = best.score if validated else None
        save_bundle(_bundle(start, model, store, val_acc=score), outputs.bundle)
    why = "the last, as all photos were trained on" if score is None else f"{MONITOR} {score:.4f}"
    print(f"Kept epoch {best.epoch} of {len(history.rows)}: {why}")
    images = data.train_dataloader().order.photos * len(history.rows)
    return {
        "epochs_run": len(history.rows),
        "images_per_second": round(images / sum(history.seconds), 1),
        # The seconds are of this bundle: DVC's run cache restores others without a training.
        "model": folder_md5(outputs.bundle),
    }


def _check_sizes(params: TrainParams, start: Start) -> None:
    """Try every size of a training in which photos grow, before it starts."""
    full = start.preprocessing.size
    sizes = {epoch_size(full, params.start_size, k, of=params.epochs) for k in range(params.epochs)}
    for size in sorted(sizes - {full}):
        try:
            try_size(start.net, size)
        except Exception as err:  # an assertion in one of timm's networks, a shape in another
            raise TrainingError(
                f"train.start_size: {params.start_size} of {full} pixels begins with {min(sizes)}, "
                f"and the network does not take {size} ({type(err).__name__}: {err}); allowed for "
                "it: a larger one, or 1.0"
            ) from err


def _check_trial(params: TrainParams, channel: Channel | None) -> None:
    if params.train_on_val and channel is not None:
        raise TrainingError(
            "train.train_on_val: true leaves nothing to compare trials by; allowed in a sweep: "
            "false"
        )


@contextmanager
def _nothing_half_written(outputs: Outputs | None) -> Iterator[None]:
    """Delete what was written before a failure; None where another process writes."""
    try:
        yield
    except BaseException:
        if outputs is not None:
            shutil.rmtree(outputs.metrics, ignore_errors=True)
            outputs.curves.unlink(missing_ok=True)
            outputs.summary.unlink(missing_ok=True)
            outputs.environment.unlink(missing_ok=True)
        raise


def _bundle(start: Start, model: ModelParams, store: Store, *, val_acc: float | None) -> Bundle:
    return Bundle(
        net=start.net,
        architecture=model.architecture,
        classes=store.classes,
        image_size=store.image_size,
        resize=store.resize,
        preprocessing=start.preprocessing,
        val_acc=val_acc,
        started_from=start.origin,
    )


def _make_module(
    start: Start, params: TrainParams, model: ModelParams, *, classes: int, part: Part | None = None
) -> ClassifierModule:
    """Wrap what is trained: the network, or its head alone."""
    net: nn.Module = start.net
    if model.head_only:
        net = Head(output_layers(start.net)[0], model.dropout)
    decay = model.layer_decay if model.finetune == "full" and model.weights != "none" else 1.0
    return ClassifierModule(
        net,
        params,
        input_size=start.preprocessing.size,
        num_classes=classes,
        layer_decay=decay,
        # Features of frozen blocks are no photos.
        mix=None if model.head_only else make_mix(params, num_classes=classes),
        part=part,
    )


def _summarize(start: Start, params: TrainParams, path: Path, *, classes: int) -> None:
    """Print and write each layer of the CNN; of timm's networks, which have hundreds, blocks."""
    module = ClassifierModule(
        start.net, params, input_size=start.preprocessing.size, num_classes=classes
    )
    summary = str(summarize(module, max_depth=-1 if isinstance(start.net, CNN) else 3))
    print(summary)
    write_text(path, summary + "\n")


def _make_trainer(
    params: TrainParams, callbacks: list[L.Callback], finetune: str, files: AtomicCheckpointIO
) -> L.Trainer:
    _quieten()
    # Deterministic mode also fills every new tensor with NaN, to show who reads one unwritten: that
    # takes about a tenth of a step, and makes nothing deterministic.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    stopping = EarlyStopping(MONITOR, mode="max", patience=params.patience)
    watched = sys.stderr.isatty()
    # Processes wait for every gradient, and of frozen blocks none comes.
    ddp = DDPStrategy(find_unused_parameters=finetune == "gradual")
    if watched:
        callbacks = [*callbacks, TQDMProgressBar(leave=False)]
    try:
        trainer = L.Trainer(
            accelerator=params.accelerator,
            devices=params.devices,
            precision=params.precision,
            num_nodes=params.num_nodes,
            strategy=ddp if params.processes > 1 or params.strategy == "ddp" else "auto",
            max_epochs=params.epochs,
            callbacks=[
                *callbacks,
                StopIfNotFinite(),
                StayStopped(),
                *([] if params.train_on_val else [stopping]),
            ],
            gradient_clip_val=params.gradient_clipping or None,
            # Every operation of the CNN is deterministic; where PyTorch is not sure (pooling's
            # gradient on CUDA, which never overlaps here) it warns instead of stopping.
            deterministic="warn",
            logger=False,
            plugins=[files],
            enable_progress_bar=watched,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, RuntimeError, ValueError) as err:
        raise TrainingError(
            f"train.accelerator: {params.accelerator} with train.devices: {params.devices} and "
            f"train.precision: {params.precision} cannot be had on this machine ({err})"
        ) from err
    if params.precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise TrainingError(
            'train.precision: "16-mixed" needs a GPU and none was found; allowed here: "32", '
            '"bf16-mixed"'
        )
    return trainer


def _fit(trainer: L.Trainer, module: ClassifierModule, data: StoreData, *, resume: bool) -> None:
    path = CHECKPOINT if resume else None
    try:
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    except RuntimeError as err:
        if is_out_of_memory(err):
            raise TrainingError(
                f"memory is too small for train.batch_size: {module.params.batch_size} with this "
                "model and data.image_size; try half of it"
            ) from err
        if type(err).__module__.startswith(("torch._inductor", "torch._dynamo")):
            raise TrainingError(
                f"train.compile: true does not work here ({str(err).strip().splitlines()[0]}); it "
                "needs a C++ compiler, and on a GPU Triton; allowed here: false"
            ) from err
        raise
    except ValueError as err:
        if "more than 1 value per channel" in str(err):  # batch norm over a single number
            without = ", or model.batch_norm: false" if isinstance(module.net, CNN) else ""
            raise TrainingError(
                f"train.batch_size: {module.params.batch_size} leaves batch norm a single pixel to "
                f"take statistics of; allowed here: 2 or more{without}"
            ) from err
        raise
    except SystemExit as err:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from err


def _quieten() -> None:
    """Keep Lightning to what a person needs to know."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
