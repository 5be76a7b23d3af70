"""One way to train on instances, in a process of its own; prints what epochs took as JSON.

    python -m benchmarks.one_training --way images --project DIR --diameter 64 --workers 2

PyTorch's loader hands out batches of float32, and nothing is done with them. Its workers stay from
the first epoch to the second. *h5py* is a plain data set over the `.h5sc` file, read at random.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ChunkReads, cpu_seconds

BATCH = 64
EPOCHS = 2


class PlainPictures:
    """What one writes without us: a picture by its number, the file open in each worker."""

    def __init__(self, path: Path) -> None:
        import h5py

        self._path, self._images = str(path), None
        with h5py.File(path, "r") as file:
            self._n = len(file["obsm/single_cell_images"])
            self._n_masks = int(file["uns/single_cell_images/n_masks"][()])

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, number: int) -> tuple[Any, int]:
        import h5py
        import torch

        if self._images is None:
            self._images = h5py.File(self._path, "r")["obsm/single_cell_images"]
        picture = self._images[number, self._n_masks :]
        return torch.from_numpy(picture.astype(np.float32)), number


def loader_of(args: argparse.Namespace, h5sc: Path) -> tuple[Any, Any]:
    """A loader, and what tells its data set of the epoch."""
    import torch

    more = {"num_workers": args.workers, "persistent_workers": args.workers > 0}
    if args.way == "h5py":
        data: Any = PlainPictures(h5sc)
        shuffled = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, **more)
        return shuffled, lambda epoch: None
    from scportrait_like.training import InstanceDataset

    if args.way == "images":
        data = InstanceDataset(args.project, diameter=args.diameter, batch_size=BATCH)
    else:
        data = InstanceDataset(h5sc, batch_size=BATCH)
    return torch.utils.data.DataLoader(data, batch_size=None, **more), data.set_epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=["images", "h5sc", "h5py"], required=True)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--diameter", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()
    from scportrait_like import names
    from scportrait_like.filehandler import FileHandler

    folder = args.project / names.EXTRACTION_DIR / names.EXTRACTION_DATA
    image = FileHandler(args.project).array_path(names.INPUT_IMAGE)
    chunks = sum(1 for path in (image / "c").rglob("*") if path.is_file())
    reads = ChunkReads([image])
    began = time.perf_counter()
    loader, set_epoch = loader_of(args, folder / names.H5SC_FILE)
    made = time.perf_counter() - began
    epochs = []
    for epoch in range(EPOCHS):
        set_epoch(epoch)
        before = reads.n
        began, cpu = time.perf_counter(), cpu_seconds()
        n = pixels = 0
        for images, _ in loader:
            n, pixels = n + len(images), pixels + images.numel()
        epochs.append(
            {
                "seconds": time.perf_counter() - began,
                "cpu": cpu_seconds() - cpu,
                "instances": n,
                "pixels": pixels,
                "chunk_reads": (reads.n - before) / chunks,
            }
        )
    print(json.dumps({"made_s": made, "epochs": epochs}), flush=True)


if __name__ == "__main__":
    main()
