"""Load batches with crop, flip and colour jitter by other libraries, as their documents show.

Conversions (LitData's chunks, WebDataset's shards, FFCV's file) are not timed.
"""

from __future__ import annotations

import io
import logging
import tarfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contender import Link
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

MEAN = STD = (0.5, 0.5, 0.5)
BORDER = 8  # a crop moves by at most 1/BORDER of the side, as in fieldguide

Settings = dict[str, Any]


def main() -> None:
    """Measure the loader that the settings name."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    link, settings = Link.open()
    try:
        loader = LOADERS[settings["contender"]](settings)
    except ImportError as err:
        link.leave_out(f"not installed here: {err}")
        return
    for _ in loader:  # FFCV compiles in its first epoch
        pass
    device = torch.device(settings["device"])

    def measure() -> float:
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < settings["seconds"]:
            for images, *_ in loader:
                images.to(device, non_blocking=True)
                count += len(images)
            if device.type == "cuda":
                torch.cuda.synchronize()
        return count / (time.perf_counter() - start)

    link.serve(measure)


def augmentation(settings: Settings, *, resize: bool) -> Any:
    """Build torchvision's transforms on uint8, floats last, as its documents say."""
    size, jitter = settings["size"], settings["jitter"]
    return v2.Compose(
        [
            v2.ToImage(),
            *([v2.Resize(size), v2.CenterCrop(size)] if resize else []),
            v2.RandomCrop(size, padding=size // BORDER, padding_mode="reflect"),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(jitter, jitter, jitter),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def image_folder(settings: Settings) -> Iterable[Any]:
    """Load the original photos with `ImageFolder` and `DataLoader`."""
    return _image_folder(settings, settings["photos"], resize=True)


def image_folder_resized(settings: Settings) -> Iterable[Any]:
    """Load photos resized beforehand with `ImageFolder` and `DataLoader`."""
    return _image_folder(settings, settings["resized"], resize=False)


def _image_folder(settings: Settings, folder: str, *, resize: bool) -> Iterable[Any]:
    dataset = ImageFolder(Path(folder) / "train", augmentation(settings, resize=resize))
    return DataLoader(
        dataset,
        settings["batch"],
        shuffle=True,
        drop_last=True,
        num_workers=settings["workers"],
        persistent_workers=True,
        pin_memory=settings["device"] == "cuda",
    )


def timm(settings: Settings) -> Iterable[Any]:
    """Load the original photos with timm's `create_loader`, whose crop is random-resized."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(Path(settings["photos"]) / "train"), is_training=True)
    loader: Iterable[Any] = create_loader(
        dataset,
        input_size=(3, settings["size"], settings["size"]),
        batch_size=settings["batch"],
        is_training=True,
        color_jitter=settings["jitter"],
        num_workers=settings["workers"],
        mean=MEAN,
        std=STD,
        device=torch.device(settings["device"]),
        pin_memory=settings["device"] == "cuda",
    )
    return loader


def litdata(settings: Settings) -> Iterable[Any]:
    """Load LitData's chunks of decoded pixels, the faster of its two formats."""
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    chunks = str(Path(settings["work"]) / f"litdata-{settings['size']}")
    optimize(
        fn=decoded,
        inputs=ImageFolder(Path(settings["resized"]) / "train").samples,
        output_dir=chunks,
        chunk_bytes="64MB",
        num_workers=settings["workers"],
        verbose=False,
    )
    transform = partial(augmented_item, transform=augmentation(settings, resize=False))
    dataset = StreamingDataset(chunks, shuffle=True, drop_last=True, transform=transform)
    loader: Iterable[Any] = StreamingDataLoader(
        dataset,
        batch_size=settings["batch"],
        num_workers=settings["workers"],
        persistent_workers=True,
    )
    return loader


def decoded(sample: tuple[str, int]) -> Settings:
    """Return an item of LitData's chunks."""
    return {"image": v2.functional.pil_to_tensor(_open(sample[0])), "label": sample[1]}


def augmented_item(item: Settings, transform: Any) -> tuple[Any, int]:
    """Return an item of LitData's batches."""
    return transform(tv_tensors.Image(item["image"])), item["label"]


def _open(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def webdataset(settings: Settings) -> Iterable[Any]:
    """Load WebDataset's tar shards of JPEGs that were resized beforehand."""
    import webdataset as wds

    samples = ImageFolder(Path(settings["resized"]) / "train").samples
    shards = []
    for k in range(4 * settings["workers"]):
        path = Path(settings["work"]) / f"webdataset-{settings['size']}-{k:03d}.tar"
        with tarfile.open(path, "w") as shard:
            for number, (photo, label) in enumerate(samples[k :: 4 * settings["workers"]]):
                _add(shard, f"{k:03d}{number:06d}.jpg", Path(photo).read_bytes())
                _add(shard, f"{k:03d}{number:06d}.cls", str(label).encode())
        shards.append(str(path))
    dataset = (
        wds.WebDataset(shards, shardshuffle=100)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(augmentation(settings, resize=False))
        .batched(settings["batch"])
    )
    loader: Iterable[Any] = wds.WebLoader(
        dataset,
        batch_size=None,
        num_workers=settings["workers"],
        persistent_workers=True,
        pin_memory=settings["device"] == "cuda",
    )
    return loader


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    shard.addfile(info, io.BytesIO(data))


def ffcv(settings: Settings) -> Iterable[Any]:
    """Load FFCV's file of raw pixels with its compiled augmentation."""
    import numpy as np
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        NormalizeImage,
        RandomBrightness,
        RandomContrast,
        RandomHorizontalFlip,
        RandomSaturation,
        RandomTranslate,
        ToDevice,
        ToTensor,
        ToTorchImage,
    )
    from ffcv.writer import DatasetWriter

    path = str(Path(settings["work"]) / f"{settings['size']}.beton")
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    writer = DatasetWriter(path, fields, num_workers=settings["workers"])
    writer.from_indexed_dataset(ImageFolder(Path(settings["resized"]) / "train"))
    jitter, size = settings["jitter"], settings["size"]
    scale = np.array(MEAN) * 255
    image = [
        SimpleRGBImageDecoder(),
        RandomTranslate(padding=size // BORDER),
        RandomHorizontalFlip(),
        RandomBrightness(jitter, p=1),
        RandomContrast(jitter, p=1),
        RandomSaturation(jitter, p=1),
        NormalizeImage(scale, scale, np.float32),
        ToTensor(),
        ToDevice(torch.device(settings["device"]), non_blocking=True),
        ToTorchImage(),
    ]
    loader: Iterable[Any] = Loader(
        path,
        batch_size=settings["batch"],
        num_workers=settings["workers"],
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor()]},
    )
    return loader


LOADERS: dict[str, Callable[[Settings], Iterable[Any]]] = {
    "ImageFolder": image_folder,
    "ImageFolder, resized before": image_folder_resized,
    "timm": timm,
    "LitData": litdata,
    "WebDataset": webdataset,
    "FFCV": ffcv,
}

if __name__ == "__main__":
    main()
