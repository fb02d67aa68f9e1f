"""Write a TIFF with any tags and planes, so that every odd combination can be tested (TIFF 6.0)."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

NONE, LZW, JPEG, DEFLATE, PACKBITS = 1, 5, 7, 8, 32773
COMPRESSIONS = (NONE, LZW, DEFLATE, PACKBITS)


def write_tiff(
    samples,
    *,
    bits=8,
    photometric=1,
    sample_format=None,
    extra=None,
    planar=1,
    order="<",
    compression=NONE,
    predictor=1,
    fill_order=1,
    tile=None,
    rows=None,
    big=False,
    tags=(),
    next_page=False,
):
    """Write samples (H, W, samples per pixel) as they are; the caller chooses tags that fit.

    Args:
        samples: unsigned or signed integers, or floats.
        bits: of each sample.
        tile: side of a tile in pixels; None for strips of `rows` rows (None for one strip).
        order: "<" or ">".
        big: write a BigTIFF.
        tags: further ones, as (tag, type, values).
        next_page: write a second page; a grey one is inverted.
    """
    height, width, count = samples.shape
    planes = [samples] if planar == 1 else [samples[..., k : k + 1] for k in range(count)]
    side = (tile, tile) if tile else (rows or height, width)
    blocks = [
        _compress(_pack(block, bits, order, predictor), compression, block)
        for plane in planes
        for block in _blocks(plane, side, pad=bool(tile))
    ]
    if fill_order == 2:
        blocks = [bytes(int(f"{b:08b}"[::-1], 2) for b in block) for block in blocks]
    entries = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * count), (259, 3, [compression]),
        (262, 3, [photometric]), (277, 3, [count]), (284, 3, [planar]), *tags,
    ]  # fmt: skip
    where = (324, 325) if tile else (273, 279)
    entries += [(322, 4, [tile]), (323, 4, [tile])] if tile else [(278, 4, [side[0]])]
    entries += [(266, 3, [fill_order])] if fill_order != 1 else []
    entries += [(317, 3, [predictor])] if predictor != 1 else []
    entries += [(338, 3, extra)] if extra is not None else []
    entries += [(339, 3, [sample_format] * count)] if sample_format else []
    head = 16 if big else 8
    offsets, at = [], head
    for block in blocks:
        offsets.append(at)
        at += len(block)
    entries += [(where[0], 4, offsets), (where[1], 4, [len(block) for block in blocks])]
    given = {tag for tag, _, _ in tags}
    entries = [entry for entry in entries if entry[0] not in given or entry in tags]
    at += at % 2
    directory = _directory(entries, at, order, big=big)
    data = b"".join(blocks)
    data += bytes(at - head - len(data))
    start = (b"II" if order == "<" else b"MM") + (
        struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    )
    whole = start + data + directory
    if next_page:  # the offset of the next directory is the last entry of the first
        end = at + (8 + 20 * len(entries) if big else 2 + 12 * len(entries))
        entries = [entry for entry in entries if entry[0] != 262]
        entries.append((262, 3, [{0: 1, 1: 0}.get(photometric, photometric)]))
        second = _directory(entries, len(whole), order, big=big)
        size = "Q" if big else "I"
        pointer = struct.pack(order + size, len(whole))
        whole = whole[:end] + pointer + whole[end + len(pointer) :] + second
    return whole


def _blocks(plane, side, *, pad):
    height, width, _ = plane.shape
    for top in range(0, height, side[0]):
        for left in range(0, width, side[1]):
            block = plane[top : top + side[0], left : left + side[1]]
            if pad:
                missing = [(0, side[0] - block.shape[0]), (0, side[1] - block.shape[1]), (0, 0)]
                block = np.pad(block, missing, mode="edge")
            yield block


def _pack(block, bits, order, predictor):
    """Pack samples into bytes, each row from a new byte (TIFF 6.0, sections 8 and 14)."""
    height, _, count = block.shape
    if predictor == 3:  # Adobe's technical note 3: floats, bytes apart, most significant first
        raw = block.astype(f">f{bits // 8}").view(np.uint8).reshape(height, -1, bits // 8)
        raw = raw.swapaxes(1, 2).reshape(height, -1)
        steps = raw.astype(int)
        steps[:, count:] -= raw[:, :-count].astype(int)
        return (steps & 255).astype(np.uint8).tobytes()
    if predictor == 2:
        steps = block.astype(np.int64)
        steps[:, 1:] -= block[:, :-1].astype(np.int64)
        block = (steps & (2**bits - 1)).astype(f"u{bits // 8}")
    if bits >= 8 and bits != 12:
        kind = block.dtype.kind
        return block.astype(f"{order}{kind}{bits // 8}").tobytes()
    values = block.reshape(height, -1, 1).astype(int)
    lines = values >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(lines.reshape(height, -1).astype(np.uint8), axis=1).tobytes()


def _compress(raw, compression, block):
    if compression == LZW:
        return _lzw(raw)
    if compression == DEFLATE:
        return zlib.compress(raw)
    if compression == PACKBITS:
        parts = [raw[k : k + 128] for k in range(0, len(raw), 128)]
        return b"".join(bytes([len(part) - 1]) + part for part in parts)
    if compression == JPEG:
        file = io.BytesIO()
        pixels = block[..., 0] if block.shape[2] == 1 else block
        mode = {2: "L", 3: "RGB", 4: "CMYK"}[pixels.ndim if pixels.ndim == 2 else block.shape[2]]
        Image.fromarray(np.ascontiguousarray(pixels), mode).save(
            file, "JPEG", quality=98, subsampling=0, keep_rgb=True
        )
        return file.getvalue()
    return raw


def _lzw(raw):
    """Write literal codes of 9 bits, and clear the table before codes become longer."""
    codes = []
    for k, byte in enumerate(raw):
        codes += [256, byte] if k % 200 == 0 else [byte]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


def _directory(entries, at, order, *, big):
    """Return a directory that lies at `at`, with long values behind it."""
    count, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    form = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 11: "f", 12: "d", 16: "Q"}
    size = struct.calcsize("=" + count) + len(entries) * (struct.calcsize("=" + entry) + inline)
    values_at = at + size + inline
    table, values = struct.pack(order + count, len(entries)), b""
    for tag, kind, given in sorted(entries):
        packed = struct.pack(f"{order}{len(given)}{form[kind]}", *given)
        number = len(given) // 2 if kind == 5 else len(given)
        table += struct.pack(order + entry, tag, kind, number)
        if len(packed) > inline:
            table += struct.pack(order + ("Q" if big else "I"), values_at + len(values))
            values += packed + bytes(len(packed) % 2)
        else:
            table += packed.ljust(inline, b"\0")
    return table + bytes(inline) + values
