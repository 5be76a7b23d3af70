"""One featurization or extraction of instances, in a process of its own; prints JSON.

    python -m benchmarks.one_featurization --image ARRAY --labels ARRAY --job featurize

``featurize`` is `scportrait_like.tb.featurize` with a model that takes the mean of each channel of
a window; ``extract`` is `scportrait_like.tb.extract_instances` to zarr. Each is timed twice, from
call to return: the first call of this process, which loads the compiled kernels, and one more. With
--mark, memory is watched from outside meanwhile, and chunk files that this process opens are
counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ChunkReads, bytes_read, cpu_seconds

JOBS = ("featurize", "extract")


def mean_model(batch: Any, embedding_dimension: int) -> Any:
    """Mean of each channel of a window, zeros around the cell included."""
    return batch.mean(axis=(2, 3, 4))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--labels", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--job", choices=JOBS, required=True)
    parser.add_argument("--diameter", type=int, default=64)
    parser.add_argument("--channels", type=int, help="only so many, from the first")
    parser.add_argument("--memory-limit", default=None)
    parser.add_argument("--rows", type=int, help="only so many rows of pixels, from the top")
    parser.add_argument("--once", action="store_true", help="work only once")
    parser.add_argument("--mark", type=Path, default=None, help="made when the work begins")
    parser.add_argument("--save", type=Path, help="embeddings (.npy) or instances (.zarr) are kept")
    return parser.parse_args()


def main() -> None:
    args = _arguments()
    logging.disable(logging.WARNING)
    began = time.perf_counter()
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    import scportrait_like as sl

    if args.memory_limit is not None:
        sl.settings.memory_limit = args.memory_limit
    folders = [args.image.resolve(), args.labels.resolve()]
    image: Any = da.from_zarr(str(folders[0]))  # type: ignore[no-untyped-call]
    labels: Any = da.from_zarr(str(folders[1]))  # type: ignore[no-untyped-call]
    image, labels = image[: args.channels, : args.rows], labels[: args.rows]
    sdata = SpatialData(
        images={"image": Image2DModel.parse(image, dims=("c", "y", "x"))},
        labels={"labels": Labels2DModel.parse(labels, dims=("y", "x"))},
    )
    output = Path(args.save or args.image.parent / f"instances-{time.time_ns()}")

    def work() -> int:
        if args.job == "featurize":
            sl.tb.featurize(
                sdata,
                image_name="image",
                labels_name="labels",
                table_name=None,
                output_table_name="table",
                diameter=args.diameter,
                embedding_dimension=len(image),
                model=mean_model,
                overwrite=True,
            )
            return len(sdata["table"])
        ids, _ = sl.tb.extract_instances(
            sdata,
            image_name="image",
            labels_name="labels",
            diameter=args.diameter,
            zarr_output_path=str(output),
            overwrite=True,
        )
        return len(ids)

    found: dict[str, Any] = {"load_s": time.perf_counter() - began, "again": None}
    reads = ChunkReads(folders)
    if args.mark is not None:
        args.mark.touch()
    for call in ("first",) if args.once else ("first", "again"):
        before = reads.n
        began, cpu, taken = time.perf_counter(), cpu_seconds(), bytes_read()
        found["cells"] = work()
        found[call] = {
            "seconds": time.perf_counter() - began,
            "cpu": cpu_seconds() - cpu,
            "bytes_read": bytes_read() - taken,
            "chunk_reads": reads.n - before,
        }
    found |= {
        "channels": len(image),
        "image_chunks": image.npartitions,
        "label_chunks": labels.npartitions,
        "written": sum(f.stat().st_size for f in output.rglob("*") if f.is_file()),
    }
    if args.job == "featurize" and args.save is not None:
        np.save(args.save, sdata["table"].obsm["embedding"])
    if args.job == "extract" and args.save is None:
        shutil.rmtree(output)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
