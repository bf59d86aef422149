"""Reads packed .fmq files of versions 0.9 to 1.x with numpy alone.

    tensors = read("net.fmq")          # {name: array}, floats as float32, integers as int64
    tensors = expand(tensors)          # in upstream's layout, where the net projects its embedding
    python3 read_fmq.py net.fmq [OUT.npz]

Written from the byte specification in the documentation of quant_core::format.
"""

import struct
import sys
import zlib

import numpy as np

INLINE = 1 << 1  # feature bit: records stand before their data, paddings are to 4
FIELDS = struct.Struct("<4sHHIIQIIIII20s")
NET, NAMES = 1, 2


def read(path):
    """The tensors of the packed file at `path`, by name in the file's order."""
    with open(path, "rb") as file:
        return parse(file.read())


def expand(tensors):
    """The tensors in upstream's layout: a projection of the embedding multiplied into its readers."""
    if "emb_projection.weight" not in tensors:
        return tensors
    projection, offset = (tensors[f"emb_projection.{part}"].astype(float) for part in ("weight", "bias"))
    found = {}
    for name, array in tensors.items():
        layer, _, part = name.rpartition(".")
        if layer.endswith(".emb_layers.1"):
            weight = tensors[f"{layer}.weight"].astype(float)
            array = weight @ projection if part == "weight" else array + weight @ offset
        if layer != "emb_projection":
            found[name] = array.astype(np.float32)
    return found


def parse(data):
    """The tensors of the packed file that `data` are."""
    need(len(data) >= 64, "shorter than a header")
    header = FIELDS.unpack_from(data)
    magic, major, minor, features, _, length, head, tensors, sections, head_crc, payload_crc, _ = header
    need(magic == b"fmq\x1a", "no packed file")
    need(major == 1 or (major, minor) == (0, 9), f"version {major}.{minor}")
    need(features in (0, INLINE), f"unknown features {features:#x}")
    need(length == len(data), f"{len(data)} bytes, its header says {length}")
    need(zlib.crc32(data[40:head], zlib.crc32(data[:36])) == head_crc, "the head is damaged")
    need(zlib.crc32(data[head:]) == payload_crc, "the payload is damaged")
    contents = {}
    for i in range(sections):
        kind, offset, size, _ = struct.unpack_from("<4I", data, 64 + 16 * i)
        contents[kind] = data[offset : offset + size]
    arrays, end = [], head
    for i in range(tensors):
        if features & INLINE:
            encoding, shape, start = inline_record(data, end)
            align = 4
        else:
            encoding, shape, start = table_record(data, 64 + 16 * sections + 64 * i)
            align = 16
        array, end = decode(data, start, encoding, shape, align)
        arrays.append(array)
    need(end == len(data), "bytes after the last tensor")
    return dict(zip(names(contents, tensors), arrays))


def need(holds, reason):
    if not holds:
        raise ValueError(f"packed file: {reason}")


def inline_record(data, at):
    tag, at = data[at], at + 1
    encoding, rank = (tag & 15,), tag >> 4
    if tag & 15 == 3:
        bits, codebook, scales, order = *nibbles(data[at]), *nibbles(data[at + 1])
        rows, at = varint(data, at + 2)
        need(order == 0, "unknown layout of codes")
        encoding = (3, bits, codebook, scales, rows)
    shape = []
    for _ in range(rank):
        size, at = varint(data, at)
        shape.append(size)
    return encoding, tuple(shape), at + -at % 4


def nibbles(byte):
    return byte & 15, byte >> 4


def varint(data, at):
    number, shift = 0, 0
    while True:
        number |= (data[at] & 127) << shift
        if data[at] < 128:
            return number, at + 1
        at, shift = at + 1, shift + 7


def table_record(data, at):
    offset, _, encoding, rank, bits, order, codebook, scales, _, rows, _ = struct.unpack_from(
        "<QQ6BHII", data, at
    )
    need(order == 0, "unknown layout of codes")
    shape = struct.unpack_from(f"<{rank}I", data, at + 32)
    return (encoding, bits, codebook, scales, rows), shape, offset


def decode(data, start, encoding, shape, align):
    """The tensor whose data begin at `start`, and where they end."""
    count = int(np.prod(shape, dtype=np.int64))
    if encoding[0] < 3:
        dtype = np.dtype(("<f4", "<f2", "<i8")[encoding[0]])
        array = np.frombuffer(data, dtype, count, start).reshape(shape)
        wide = np.int64 if encoding[0] == 2 else np.float32
        return array.astype(wide), start + count * dtype.itemsize
    _, bits, codebook, scales, shared = encoding
    rows, row_len = (shape[0], count // shape[0]) if len(shape) > 1 else (1, count)
    levels, books = 1 << bits, -(-rows // shared)
    size = (4 * levels, 2 * levels, 4 + 2 * levels, 4 + levels, 8, 16)[codebook]
    scale_type = (None, np.dtype("<f2"), np.dtype("<f4"), np.dtype("u1"))[scales]
    codes_at = books * size + (rows * scale_type.itemsize if scale_type else 0)
    codes_at += -codes_at % align
    packed_len = (row_len * bits + 7) // 8

    table = np.empty((books, levels), np.float32)
    for i in range(books):
        weights = min(shared, rows - i * shared) * row_len
        at = start + i * size
        table[i] = codebook_levels(data[at : at + size], codebook, levels, weights)
    packed = np.frombuffer(data, np.uint8, rows * packed_len, start + codes_at)
    stream = np.unpackbits(packed.reshape(rows, packed_len), axis=1, bitorder="little")
    stream = stream[:, : row_len * bits].reshape(rows, row_len, bits)
    codes = (stream.astype(np.uint16) << np.arange(bits, dtype=np.uint16)).sum(2)
    values = table[np.arange(rows)[:, None] // shared, codes]
    if scale_type:
        factors = np.frombuffer(data, scale_type, rows, start + books * size)
        if scales == 3:
            factors = np.exp2(factors / 16 - 12)
        values = values * factors.astype(np.float32)[:, None]
    return values.reshape(shape), start + codes_at + rows * packed_len


def codebook_levels(stored, codebook, levels, weights):
    if codebook < 2:
        return np.frombuffer(stored, ("<f4", "<f2")[codebook]).astype(np.float32)
    if codebook < 4:
        scale = np.frombuffer(stored, "<f4", 1)
        entries = np.frombuffer(stored, ("<i2", "i1")[codebook - 2], offset=4)
        return entries.astype(np.float32) * scale
    if codebook == 4:
        least, step = np.frombuffer(stored, "<f4")
        return np.arange(levels, dtype=np.float32) * step + least
    return log_levels(np.frombuffer(stored, "<f4").astype(np.float64), levels, weights)


def log_levels(magnitudes, levels, weights):
    negative, positive = magnitudes[:2], magnitudes[2:]
    most = min(levels, weights)
    below = sign_count(negative, most // 2)
    above = sign_count(positive, most // 2 if below else most)
    used = [-m for m in geometric(negative, below)[::-1]] + geometric(positive, above)
    used = used or [0.0]
    return np.array(used + used[-1:] * (levels - len(used)), np.float32)


def sign_count(magnitudes, most):
    least, greatest = magnitudes
    return 0 if greatest == 0 else most if least < greatest else 1


def geometric(magnitudes, count):
    if count < 2:
        return [magnitudes[0]] * count
    first, last = np.log2(magnitudes)
    return [np.exp2(first + (last - first) * (i / (count - 1))) for i in range(count)]


def names(contents, count):
    """The names that are stored, or those of the net's parameters in upstream's order."""
    if NAMES in contents:
        stored, found = contents[NAMES], []
        while stored:
            size = 2 + int.from_bytes(stored[:2], "little")
            found.append(stored[2:size].decode())
            stored = stored[size:]
    else:
        need(NET in contents or count == 0, "neither names nor a net that has them")
        found = net_names(contents[NET]) if NET in contents else []
    need(len(found) == count, f"{len(found)} names of {count} tensors")
    return found


def net_names(record):
    word = struct.unpack("<40I", record)
    model_channels, res_blocks, classes, flags = word[1], word[3], word[7], word[10]
    rates, mults = record[44], record[45]
    attends = [1 << level in word[12 : 12 + rates] for level in range(mults)]
    widths = [int(m * model_channels) for m in struct.unpack_from(f"<{mults}d", record, 80)]
    conv_resample, resblock_updown = flags & 1, flags >> 2 & 1
    ignore_time, input_projection, rank = flags >> 5 & 1, flags >> 6 & 1, word[37]
    found = []

    def add(prefix):
        found.extend((f"{prefix}.weight", f"{prefix}.bias"))

    def residual(prefix, read, written):
        add(f"{prefix}.in_layers.0")
        add(f"{prefix}.in_layers.2")
        if ignore_time and not classes:
            found.append(f"{prefix}.emb_layers.embedding_table")
        else:
            add(f"{prefix}.emb_layers.1")
        add(f"{prefix}.out_layers.0")
        add(f"{prefix}.out_layers.3")
        if read != written:
            add(f"{prefix}.skip_connection")

    def attention(prefix):
        for part in ("norm", "qkv", "proj_out"):
            add(f"{prefix}.{part}")

    def resample(prefix, channels, part):
        if resblock_updown:
            residual(prefix, channels, channels)
        elif conv_resample:
            add(f"{prefix}.{part}")

    if not ignore_time:
        add("time_embed.0")
        add("time_embed.2")
    if classes:
        found.append("label_emb.weight")
    if rank:
        add("emb_projection")
    if input_projection:
        add("input_blocks.0.0")
    skips, channels, block = [widths[0]], widths[0], 1
    for level, width in enumerate(widths):
        for _ in range(res_blocks):
            residual(f"input_blocks.{block}.0", channels, width)
            if attends[level]:
                attention(f"input_blocks.{block}.1")
            channels, block = width, block + 1
            skips.append(channels)
        if level + 1 < mults:
            resample(f"input_blocks.{block}.0", channels, "op")
            skips.append(channels)
            block += 1
    residual("middle_block.0", channels, channels)
    attention("middle_block.1")
    residual("middle_block.2", channels, channels)
    block = 0
    for level in reversed(range(mults)):
        for i in range(res_blocks + 1):
            residual(f"output_blocks.{block}.0", channels + skips.pop(), widths[level])
            if attends[level]:
                attention(f"output_blocks.{block}.1")
            channels = widths[level]
            if level and i == res_blocks:
                resample(f"output_blocks.{block}.{1 + attends[level]}", channels, "conv")
            block += 1
    add("out.0")
    add("out.2")
    return found


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: read_fmq.py IN.fmq [OUT.npz]")
    tensors = expand(read(sys.argv[1]))
    if len(sys.argv) == 3:
        np.savez(sys.argv[2], **tensors)
    else:
        for name, array in tensors.items():
            print(f"{name} {list(array.shape)} {array.dtype}")
