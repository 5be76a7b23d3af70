"""Makes the gigapixel and the terapixel store, for the disk of a few hundred MB each.

    python -m benchmarks.big_store gigapixel|terapixel [--check] [--channels 100] [--edge 20000]

The image has few distinct chunks of synthetic tissue; every other chunk file is a hard link to one
of them, so decoding all chunks costs what it always costs, and the disk holds them once. The labels
are real chunks with unique ids.

All chunks show the same cells, painted on a torus of one chunk: what leaves it on the right comes
back on the left. So cells cross the borders of chunks. A pixel of such a cell knows how many chunks
away the chunk lies that holds the cell's centre, its owner; the id is made of the owner's number
and of the cell's. The mask is then one continuous tissue, and every id stands for one cell. The
images follow the same pattern; distinct chunks differ in how bright their cells are, and in noise.

``--check`` reads the store and holds it against what it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.big_tissue import (
    CHUNK,
    DISTINCT,
    IMAGE,
    LABELS,
    STORES,
    BigStore,
    Expected,
    Pattern,
)
from benchmarks.common import DATA, MB
from scportrait_like.datasets import synthetic_kernels as kernels
from scportrait_like.filehandler import FileHandler

# ext4 takes this many names for a file.
MOST_LINKS = 65_000
_SEED = 4
_TYPES = 6


class _Painted:
    """The pattern, and what the image needs besides: who owns a pixel, and how far from it."""

    def __init__(self, cells: NDArray[np.float64]) -> None:
        shifts = list(product((-1, 0, 1), repeat=2))
        copies = []
        for dy, dx in shifts:
            moved = cells.copy()
            moved[:, [kernels.CY, kernels.NUCLEUS_Y]] += dy * CHUNK
            moved[:, [kernels.CX, kernels.NUCLEUS_X]] += dx * CHUNK
            copies.append(moved)
        self.cells = np.concatenate(copies)
        self.owner = np.empty((CHUNK, CHUNK), np.int32)
        self.distance = np.empty((CHUNK, CHUNK), np.float32)
        kernels.paint(self.cells, 0, 0, self.owner, self.distance)
        inside = np.where(self.distance < 1, self.owner, -1)
        rows, codes = np.unique(inside, return_inverse=True)
        rows = rows[rows >= 0]
        # The background is the first of what `unique` found.
        codes = codes.reshape(inside.shape) - int(inside.min() < 0)
        shift = np.array(shifts)[rows // len(cells)]
        self.pattern = Pattern(
            codes.astype(np.int16), rows % len(cells), shift[:, 0], shift[:, 1], len(cells)
        )


def paint(store: BigStore) -> _Painted:
    """Paint a chunk's cells, as many as make the mask's number of ids."""
    spacing = CHUNK / store.lattice
    jitter = min(0.38, (1 - 1.2 * store.radius / spacing) / 2)
    lattice = (0, store.lattice, 0, store.lattice)
    cells, _ = kernels.place(_SEED, lattice, spacing, jitter, store.radius, _TYPES, (CHUNK, CHUNK))
    # A cell of the chunk makes one id a chunk, and some more where the image's border cuts it.
    found, _ = Expected(store, _Painted(cells).pattern).ids_and_counts()
    made = np.bincount((found - 1) % len(cells), minlength=len(cells))
    order = np.random.default_rng(_SEED).permutation(len(cells))
    kept = int(np.searchsorted(np.cumsum(made[order]), store.cells)) + 1
    return _Painted(cells[np.sort(order[:kept])])


def render(painted: _Painted, number: int) -> NDArray[np.uint16]:
    """One of the distinct chunks of the image: (CHUNK, CHUNK)."""
    rng = np.random.default_rng([_SEED, number])
    strength = np.where(rng.random(_TYPES) < 0.4, 5000.0, 250.0) * rng.uniform(0.5, 1.5, _TYPES)
    kinds = painted.cells[:, kernels.TYPE].astype(int)
    gain = (strength[kinds] * painted.cells[:, kernels.LEVEL]).astype(np.float32)
    radii = np.arange(kernels.LUT_SIZE) * kernels.LUT_STEP
    # Bright to the outline, and blurred there.
    profile = (
        (0.55 + 0.45 * np.minimum(radii / 0.6, 1)) / (1 + np.exp((radii - 1) / 0.06))
    ).astype(np.float32)
    profile = profile.astype(np.float32)
    out = np.empty((CHUNK, CHUNK), np.uint16)
    key = int(kernels.mix3(_SEED, number, 1))
    kernels.shade(key, 0, 0, painted.owner, painted.distance, gain, profile, 300.0, out)
    return out


def ensure(store: BigStore) -> BigStore:
    """Make the store unless it lies there."""
    if not (store.path.exists() and store.pattern_path.exists()):
        began = time.perf_counter()
        print(f"writing {store.path}", flush=True)
        _write(store)
        print(f"written in {time.perf_counter() - began:.0f} s", flush=True)
    return store


def _write(store: BigStore) -> None:
    if store.channels * store.along**2 > DISTINCT * MOST_LINKS:
        raise SystemExit(f"{store.name}: more chunks than a file takes links; raise DISTINCT")
    DATA.mkdir(parents=True, exist_ok=True)
    part = DATA / f".{store.name}.part"
    for old in (part, store.path):
        shutil.rmtree(old, ignore_errors=True)
    painted = paint(store)
    painted.pattern.save(store.pattern_path)
    files = FileHandler(part)
    with files.raster_writer(
        LABELS,
        "labels",
        (store.edge, store.edge),
        np.uint32,
        chunks=(CHUNK, CHUNK),
        pyramid=False,
    ) as writer:
        _write_labels(store, painted.pattern, writer)
    with files.raster_writer(
        IMAGE,
        "images",
        (store.channels, store.edge, store.edge),
        np.uint16,
        chunks=(1, CHUNK, CHUNK),
        pyramid=False,
    ) as writer:
        pass
    # Links come last: the writer flushes every file of an element by its name.
    _link_image(store, painted, files.array_path(IMAGE))
    files.path.rename(store.path)
    shutil.rmtree(part)


def _write_labels(store: BigStore, pattern: Pattern, writer: Any) -> None:
    def write(place: tuple[int, int]) -> None:
        # The last of the table is the background: code -1.
        ids = np.append(pattern.ids(store.along, *place), np.uint32(0))
        y, x = (CHUNK * n for n in place)
        height, width = min(CHUNK, store.edge - y), min(CHUNK, store.edge - x)
        labels = ids[pattern.codes[:height, :width]]
        writer.write((slice(y, y + height), slice(x, x + width)), labels)

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(write, product(range(store.along), repeat=2)):
            pass


def _link_image(store: BigStore, painted: _Painted, array: Path) -> None:
    """Write the distinct chunks as files of their own, then give them all their names."""
    import zarr

    masters = array.parent.parent.parent / "masters.zarr"
    made = json.loads((array / "zarr.json").read_text())
    made["shape"] = [DISTINCT, CHUNK, CHUNK]
    masters.mkdir()
    (masters / "zarr.json").write_text(json.dumps(made))
    writing = zarr.open_array(masters, mode="r+")
    for number in range(DISTINCT):
        writing[number] = render(painted, number)
    sources = [masters / "c" / str(number) / "0" / "0" for number in range(DISTINCT)]
    for channel, row in product(range(store.channels), range(store.along)):
        folder = array / "c" / str(channel) / str(row)
        folder.mkdir(parents=True)
        for column in range(store.along):
            os.link(sources[store.distinct_of(channel, row, column)], folder / str(column))
    shutil.rmtree(masters)


def check(store: BigStore) -> dict[str, Any]:
    """Read the store as it lies on disk, and hold it against what it should be.

    Raises
    ------
    SystemExit
        Something is not as it should be.
    """
    from scportrait_like.raster.index import build_index
    from scportrait_like.raster.sources import ZarrSource

    files = [path.stat() for path in _chunk_files(store.array_path(IMAGE))]
    labels = [path.stat() for path in _chunk_files(store.array_path(LABELS))]
    sizes = {file.st_ino: file.st_size for file in files}
    ids, counts = Expected(store).ids_and_counts()
    index = build_index(ZarrSource.open(store.array_path(LABELS)))
    ratio = CHUNK**2 * 2 * len(sizes) / sum(sizes.values())
    found = {
        "image_chunks": len(files),
        "distinct_image_chunks": len(sizes),
        "most_links": max(file.st_nlink for file in files),
        "labels_chunks": len(labels),
        "ratio": ratio,
        "largest_ratio": CHUNK**2 * 2 / min(sizes.values()),
        "disk_mb": (sum(sizes.values()) + sum(file.st_size for file in labels)) / MB,
        "ids": len(index),
        "in_several_chunks": int((index.tiles > 1).sum()),
        "covered": float(index.area.sum()) / store.edge**2,
    }
    right = {
        "every chunk has a file": len(files) + len(labels) == store.n_chunks,
        "as many distinct chunks as planned": len(sizes) == _n_distinct(store),
        "compressed at most to a half": found["largest_ratio"] <= 2,
        "ids and areas as planned": np.array_equal(index.ids, ids)
        and np.array_equal(index.area, counts),
        "about as many cells as wanted": abs(len(index) / store.cells - 1) < 0.01,
        "all ids are one cell": _are_compact(store, index),
    }
    print(json.dumps(found, indent=2), flush=True)
    wrong = [what for what, holds in right.items() if not holds]
    if wrong:
        raise SystemExit(f"{store.path}: not so: {'; '.join(wrong)}")
    print("; ".join(right), flush=True)
    return found


def _n_distinct(store: BigStore) -> int:
    """All of them, save in a store of very few chunks."""
    places = np.indices((store.channels, store.along, store.along))
    return len(np.unique(store.distinct_of(*places)))


def _chunk_files(array: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(array / "c") for name in names]


def _are_compact(store: BigStore, index: Any) -> bool:
    """Whether no box is larger than a cell can be: an id in two places would have a larger one."""
    most = 2 * (store.radius * kernels.LARGEST + 1)
    axes = index.box.shape[1] // 2
    edges = index.box[:, axes:] - index.box[:, :axes]
    return bool((edges <= most).all())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that make a smaller store, for trying."""
    parser.add_argument("--channels", type=int, help="fewer of them, for trying")
    parser.add_argument("--edge", type=int, help="a smaller one, for trying")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", choices=list(STORES))
    parser.add_argument("--check", action="store_true", help="read all of it and count")
    add_options(parser)
    args = parser.parse_args()
    store = ensure(STORES[args.store].sized(args.channels, args.edge))
    if args.check:
        check(store)


if __name__ == "__main__":
    main()
