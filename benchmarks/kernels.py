"""Microseconds a cell and core of each kernel, on synthetic cells.

    python benchmarks/kernels.py [--cells 4000] [--window 64] [--batch 250] [--channels 5]

Cells are wobbly ellipses of about 17 x 17 pixels in a plane of labels (boxes of 25 x 25 with their
margin of 4), pixels are smooth noise, uint16. Each figure is CPU time, the best of some rounds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import scipy.ndimage as ndi

from scportrait_like import kernels


def cells(count, pitch=24, seed=0):
    """Labels and an image of ``count`` cells on a jittered grid."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    labels = np.zeros((side * pitch + 64, side * pitch + 64), np.uint32)
    y, x = np.indices((pitch, pitch)) - pitch / 2
    angle = np.arctan2(y, x)
    for i in range(count):
        r = rng.uniform(7, 10) * (1 + rng.uniform(0, 0.15) * np.cos(3 * angle + rng.uniform(0, 6)))
        mask = np.hypot(y * rng.uniform(0.85, 1.15), x) < r
        if i % 10 == 0:  # some have holes
            mask &= np.hypot(y, x) > 1.5
        top, left = np.array(divmod(i, side)) * pitch + 32 + rng.integers(-2, 3, 2)
        tile = labels[top : top + pitch, left : left + pitch]
        tile[mask & (tile == 0)] = i + 1
    return labels


def image(shape, channels, seed=1):
    rng = np.random.default_rng(seed)
    planes = []
    for _ in range(channels):
        smooth = ndi.gaussian_filter(rng.random(shape, dtype=np.float32), 2) * 20000
        planes.append(rng.poisson(smooth / 10).astype(np.uint16))
    return np.stack(planes)


class Clock(dict):
    """CPU seconds by part: the machine may be shared."""

    def __call__(self, name, function, *args):
        start = time.thread_time()
        result = function(*args)
        self[name] = self.get(name, 0.0) + time.thread_time() - start
        return result


def buffers(cells, channels, window):
    """What a worker would keep from batch to batch: fresh pages cost more than the kernels."""
    out = np.zeros((cells, channels + 1, window, window), np.uint16)
    return out, np.zeros((cells * (channels + 1), 2 * window * window), np.uint8)


def extract(labels, planes, ids, boxes, corners, window, how, clock, kept):
    """The whole chain of one batch."""
    n, channels = len(ids), len(planes)
    out, packed = kept[0][:n], kept[1][: n * (channels + 1)]
    offsets = clock("offsets", kernels.ragged_offsets, boxes)
    bits = np.empty(offsets[-1], np.uint8)
    blurred = np.empty(offsets[-1])
    pixels = np.empty(offsets[-1], planes.dtype)
    clock("cut_masks", kernels.cut_masks, labels, ids, boxes, offsets, bits)
    clock("fill_holes", kernels.fill_holes, bits, boxes, offsets)
    clock("blur", kernels.blur, bits, boxes, offsets, blurred)
    clock("mask_planes", kernels.mask_planes, blurred, boxes, offsets, corners, window, out[:, 0])
    for c in range(channels):
        clock("cut_pixels", kernels.cut_pixels, planes[c], boxes, offsets, pixels)
        clock(
            "portraits",
            kernels.portraits,
            pixels,
            blurred,
            boxes,
            offsets,
            corners,
            window,
            how,
            out[:, c + 1],
        )
    raw = out.reshape(n * (channels + 1), -1).view(np.uint8)
    sizes = np.empty(len(raw), np.int64)
    clock("lzf_encode", kernels.lzf_encode, raw, packed, sizes)
    return raw, packed, sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=4000)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--channels", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    labels = cells(args.cells)
    planes = image(labels.shape, args.channels)
    start = time.thread_time()
    kernels.warm_up(planes.dtype, labels.dtype)
    print(f"warm-up {time.thread_time() - start:.2f} s")
    index = Clock()
    found = index("index", kernels.label_partials, labels[None])
    pixels = labels.size
    print(
        f"label_partials: {index['index'] / pixels * 8192**2:.3f} s per 8192 x 8192, "
        f"{len(found.ids)} cells, mean height {np.diff(found.box[:, [1, 4]]).mean():.1f}"
    )
    centre = np.rint(found.sums[:, 1:] / found.area[:, None]).astype(np.int64)
    corners = centre - args.window // 2
    boxes = np.hstack(
        [
            np.maximum(found.box[:, 1:3] - 4, corners),
            np.minimum(found.box[:, 4:6] + 4, corners + args.window),
        ]
    )
    print(f"mean area of a box: {kernels.ragged_offsets(boxes)[-1] / len(boxes):.0f} pixels")
    kept = buffers(args.batch, args.channels, args.window)
    rounds = []
    shrunk = total = 0
    for _ in range(args.rounds):
        clock = Clock()
        for a in range(0, len(boxes), args.batch):
            at = slice(a, a + args.batch)
            raw, _, sizes = extract(
                labels,
                planes,
                found.ids[at],
                boxes[at],
                corners[at],
                args.window,
                kernels.Quantiles(0.001, 0.999),
                clock,
                kept,
            )
            shrunk += np.where(sizes, sizes, raw.shape[1]).sum()
            total += raw.nbytes
        rounds.append(clock)
    best = {name: min(r[name] for r in rounds) / len(boxes) * 1e6 for name in rounds[0]}
    for name, value in best.items():
        print(f"{name:12s} {value:7.2f} µs a cell")
    without = sum(v for k, v in best.items() if k != "lzf_encode")
    print(
        f"{'chain':12s} {without:7.2f} µs without lzf, {sum(best.values()):.2f} with it; "
        f"compressed to {100 * shrunk / total:.2f} %"
    )


if __name__ == "__main__":
    main()
