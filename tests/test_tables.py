"""Tables that annotate labels: made, joined, placed in objects and stores, read by others."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, TableModel

from scportrait_like.errors import ElementExistsError, InputError, ShapeError, StoreError
from scportrait_like.io.tables import (
    append_rows,
    check_may_append,
    column_name,
    instance_dtype,
    intensity_table,
    place_table,
)

CHANNELS = ["DNA", "CD3 / ε (Yb¹⁷³)", "a very long name " * 20]


def labels_of(dtype: Any = np.uint32, largest: int = 4) -> Any:
    pixels = np.zeros((20, 30), dtype)
    for row, id_ in enumerate([1, 2, 3, largest]):
        pixels[5 * row : 5 * row + 3, 2:9] = id_
    return pixels


def table_of(region: str = "cells", ids: Any = (1, 2, 3, 4), **options: Any) -> Any:
    ids = np.asarray(ids)
    values = np.arange(len(ids) * 3.0).reshape(len(ids), 3)
    given: dict[str, Any] = {
        "values": {"mean": values, "var": values + 0.5},
        "channels": CHANNELS,
        "obs": {"shapeSize": np.full(len(ids), 21), "mean_DNA": values[:, 0]},
        "obsm": {"spatial": np.ones((len(ids), 2))},
        "region_key": "fov_labels",
        "instance_key": "cell_ID",
        **options,
    }
    return intensity_table(ids=ids, region=region, **given)


@pytest.fixture
def stored(tmp_path: Path) -> SpatialData:
    made = SpatialData(
        images={"image": Image2DModel.parse(np.ones((3, 20, 30), np.uint16))},
        labels={name: Labels2DModel.parse(labels_of()) for name in ("cells", "others")},
        tables={"older": table_of("others")},
    )
    made.write(tmp_path / "study.zarr")
    return spatialdata.read_zarr(tmp_path / "study.zarr")


def check(table: Any, ids: Any = (1, 2, 3, 4)) -> None:
    values = np.arange(len(ids) * 3.0).reshape(len(ids), 3)
    assert table.X.dtype == np.float64
    np.testing.assert_array_equal(table.X, values)
    np.testing.assert_array_equal(table.layers["var"], values + 0.5)
    assert list(table.var_names) == CHANNELS
    assert list(table.obs.columns) == ["fov_labels", "cell_ID", "shapeSize", "mean_DNA"]
    assert table.obs["cell_ID"].tolist() == list(ids)
    assert isinstance(table.obs["fov_labels"].dtype, pd.CategoricalDtype)
    assert table.obs.index.name == "cells"
    assert table.obs_names.tolist() == [f"cells_{id_}" for id_ in ids]
    assert table.uns["X_statistic"] == "mean"
    assert table.uns[TableModel.ATTRS_KEY] == {
        "region": "cells",
        "region_key": "fov_labels",
        "instance_key": "cell_ID",
    }


def test_the_table() -> None:
    check(table_of())


def test_placed_in_memory() -> None:
    sdata = SpatialData(labels={"cells": Labels2DModel.parse(labels_of())})
    place_table(sdata, "intensities", table_of())
    check(sdata["intensities"])
    with pytest.raises(ElementExistsError, match="overwrite=True"):
        place_table(sdata, "intensities", table_of())
    place_table(sdata, "intensities", table_of(), overwrite=True)
    with pytest.raises(InputError, match="'cells' is one of the labels"):
        place_table(sdata, "cells", table_of(), overwrite=True)


def test_placed_in_a_store_and_read_by_others(stored: SpatialData) -> None:
    for _ in range(2):
        place_table(stored, "intensities", table_of(), overwrite=True)
    again = spatialdata.read_zarr(stored.path)
    assert set(again.tables) == {"older", "intensities"}
    for table in (
        stored["intensities"],
        again["intensities"],
        anndata.read_zarr(stored.path / "tables/intensities"),
    ):
        check(table)
    assert again["older"].obs["fov_labels"].unique().tolist() == ["others"]
    assert sorted(path.name for path in stored.path.parent.iterdir()) == ["study.zarr"]


def test_labels_and_table_are_joined(stored: SpatialData) -> None:
    place_table(stored, "intensities", table_of(ids=[1, 3, 4]))
    again = spatialdata.read_zarr(stored.path)
    _, joined = spatialdata.join_spatialelement_table(
        sdata=again, spatial_element_names="cells", table_name="intensities", how="left"
    )
    assert joined.obs["cell_ID"].tolist() == [1, 3, 4]
    assert set(again.get_annotated_regions(again["intensities"])) == {"cells"}
    instances = spatialdata.get_element_instances(again["cells"])
    assert set(joined.obs["cell_ID"]) <= set(instances)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("i1", "i2"),
        ("u1", "u2"),
        ("i2", "i2"),
        ("u2", "u2"),
        ("i4", "i4"),
        ("u4", "u4"),
        ("i8", "i8"),
        ("u8", "u8"),
        (">u4", "u4"),
    ],
)
def test_types_of_ids(dtype: str, expected: str, tmp_path: Path) -> None:
    """Every integer type is taken by spatialdata, and the largest ids are told apart."""
    assert instance_dtype(np.dtype(dtype)) == np.dtype(expected)
    largest = min(int(np.iinfo(dtype).max), 2**63 - 1)
    ids = np.array([1, 2, largest - 1, largest], dtype)
    table = table_of(ids=ids)
    assert table.obs["cell_ID"].dtype == np.dtype(expected)
    made = SpatialData(
        labels={"cells": Labels2DModel.parse(labels_of(np.dtype(dtype).newbyteorder("="), largest))}
    )
    made.write(tmp_path / "store.zarr")
    place_table(made, "intensities", table)
    again = spatialdata.read_zarr(tmp_path / "store.zarr")
    assert again["intensities"].obs["cell_ID"].dtype == np.dtype(expected)
    assert again["intensities"].obs["cell_ID"].tolist() == ids.tolist()
    _, joined = spatialdata.join_spatialelement_table(
        sdata=again, spatial_element_names="cells", table_name="intensities", how="left"
    )
    # The labels are 1, 2, 3 and the largest; its neighbour is another one.
    assert joined.obs["cell_ID"].tolist() == [1, 2, largest]


def test_names_of_columns() -> None:
    assert column_name("mean", "DNA") == "mean_DNA"
    assert column_name("q0.25", "CD3 / ε (Yb)") == "q0.25_CD3___ε__Yb_"


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"channels": ["a", "b", "a"]}, InputError, "cells: channels must differ, but a stands"),
        ({"channels": ["a", "b"]}, ShapeError, "4 cells and 2 channels"),
        ({"values": {}}, InputError, "at least one statistic"),
        ({"obs": {"a b": [1, 2, 3, 4]}}, InputError, "'a b' cannot stand in a table"),
        ({"obs": {"_index": [1, 2, 3, 4]}}, InputError, "'_index' cannot"),
        ({"obs": {"Cell_id": [1, 2, 3, 4]}}, InputError, "both 'cell_ID' and 'Cell_id'"),
        ({"region_key": "cell_ID"}, InputError, "both 'cell_ID' and 'cell_ID'"),
        ({"region_key": ""}, InputError, "cannot stand in a table"),
        ({"index_name": "cell_ID"}, InputError, "names both the index"),
    ],
)
def test_what_a_table_does_not_take(
    options: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        table_of(**options)


def joined(table: Any, new: Any) -> Any:
    check_may_append(table, "t", "others", "mean", "fov_labels", "cell_ID")
    return append_rows(table, new, "t")


def test_append(stored: SpatialData, caplog: pytest.LogCaptureFixture) -> None:
    first = table_of(ids=np.array([1, 2, 3, 4], np.uint16))
    first.uns["palette"] = ["red"]
    first.var["metal"] = ["Ir", "Yb", "Nd"]
    new = table_of("others", np.array([2, 70000], np.uint32))
    with caplog.at_level(logging.WARNING):
        both = joined(first, new)
    assert not caplog.records
    place_table(stored, "intensities", both)
    again = spatialdata.read_zarr(stored.path)
    for table in (both, again["intensities"]):
        assert table.X.tolist() == [*first.X.tolist(), *new.X.tolist()]
        assert table.layers["var"].tolist() == [
            *first.layers["var"].tolist(),
            *new.layers["var"].tolist(),
        ]
        assert table.obs["cell_ID"].tolist() == [1, 2, 3, 4, 2, 70000]
        assert table.obs["cell_ID"].dtype == np.uint32
        assert table.obs["fov_labels"].tolist() == ["cells"] * 4 + ["others"] * 2
        assert table.obs_names.is_unique
        assert table.obs.index.name == "cells"
        assert table.obs["shapeSize"].dtype == np.int64
        assert table.obsm["spatial"].shape == (6, 2)
        assert list(table.uns["palette"]) == ["red"]
        assert table.var["metal"].tolist() == ["Ir", "Yb", "Nd"]
        assert list(table.uns[TableModel.ATTRS_KEY]["region"]) == ["cells", "others"]
    assert set(first.obs["fov_labels"]) == {"cells"}
    assert first.obs["cell_ID"].dtype == np.uint16
    third = table_of("third", [5])
    check_may_append(again["intensities"], "t", "third", "mean", "fov_labels", "cell_ID")
    assert append_rows(again["intensities"], third, "t").n_obs == 7


def test_append_over_what_both_have(caplog: pytest.LogCaptureFixture) -> None:
    first = table_of()
    first.obs["leiden"] = pd.Categorical(["1", "2", "1", "2"])
    first.layers["raw"] = first.X.copy()
    first.obsm["pca"] = np.ones((4, 5))
    new = table_of(
        "others",
        [7],
        values={"mean": np.array([[1.0, 2.0]])},
        channels=[CHANNELS[2], CHANNELS[0]],
        obs={"shapeSize": [3]},
    )
    with caplog.at_level(logging.WARNING):
        both = joined(first, new)
    assert list(both.var_names) == [CHANNELS[0], CHANNELS[2]]
    assert both.X[-1].tolist() == [2, 1]
    assert both.X[1].tolist() == [3, 5]
    assert list(both.obs.columns) == ["fov_labels", "cell_ID", "shapeSize"]
    assert not both.layers
    assert set(both.obsm) == {"spatial"}
    for lost in (CHANNELS[1], "leiden", "mean_DNA", "raw", "pca", "var"):
        assert lost in caplog.text


def test_ids_that_only_one_signed_type_holds() -> None:
    first = table_of(ids=np.array([1, 2, 3, 2**62 + 1], np.uint64))
    both = joined(first, table_of("others", np.array([2**62 + 3], np.int64)))
    assert both.obs["cell_ID"].dtype == np.int64
    assert both.obs["cell_ID"].tolist() == [1, 2, 3, 2**62 + 1, 2**62 + 3]


def test_what_is_not_appended() -> None:
    table = table_of()
    with pytest.raises(InputError, match="annotates 'cells' already"):
        check_may_append(table, "t", "cells", "mean", "fov_labels", "cell_ID")
    with pytest.raises(InputError, match="region_key='fov_labels' and instance_key='cell_ID'"):
        check_may_append(table, "t", "others", "mean", "region", "cell_ID")
    with pytest.raises(InputError, match="holds the mean in X, to which the sum cannot"):
        check_may_append(table, "t", "others", "sum", "fov_labels", "cell_ID")
    with pytest.raises(InputError, match="annotates no element"):
        check_may_append(
            anndata.AnnData(np.zeros((2, 2))), "t", "others", "mean", "fov_labels", "cell_ID"
        )
    texts = table_of()
    texts.obs["cell_ID"] = ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="not integers"):
        check_may_append(texts, "t", "others", "mean", "fov_labels", "cell_ID")
    with pytest.raises(InputError, match="none of the channels x, y, z"):
        joined(table, table_of("others", channels=["x", "y", "z"]))
    with pytest.raises(ShapeError, match="'spatial'"):
        joined(table, table_of("others", obsm={"spatial": np.ones((4, 3))}))


def test_a_store_that_is_not_on_a_local_disk() -> None:
    sdata = SpatialData(labels={"cells": Labels2DModel.parse(labels_of())})
    sdata.path = "s3://bucket/study.zarr"
    with pytest.raises(StoreError, match="not on a local disk"):
        place_table(sdata, "intensities", table_of())
    check(sdata["intensities"])


def test_an_older_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    from spatialdata._io.format import SpatialDataContainerFormatV01

    made = SpatialData(labels={"cells": Labels2DModel.parse(labels_of())})
    made.write(tmp_path / "old.zarr", sdata_formats=[SpatialDataContainerFormatV01()])
    with pytest.raises(StoreError, match="older format"):
        place_table(made, "intensities", table_of())
    assert "intensities" not in made.tables


_KILLED = """
import os, signal, sys
import numpy as np, spatialdata
from scportrait_like.io import placement, tables
sys.path.insert(0, {tests!r})
from test_tables import table_of
moment, seen = int(sys.argv[2]), 0
def counted(frame, event, argument):
    global seen
    if event == "call" and frame.f_code.co_filename in ({placement!r}, {update!r}):
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
sdata = spatialdata.read_zarr(sys.argv[1])
sys.setprofile(counted)
tables.place_table(sdata, "older", table_of("others", ids=[1, 3]), overwrite=True)
sys.setprofile(None)
print(seen)
"""


@pytest.mark.slow
def test_killed_at_any_moment(stored: SpatialData) -> None:
    """A reader finds the old table or the new one, and the next write clears what was left."""
    from scportrait_like.io import placement, store_update

    script = _KILLED.format(
        tests=str(Path(__file__).parent),
        placement=placement.__file__,
        update=store_update.__file__,
    )

    def run(moment: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, str(stored.path), str(moment)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )

    calls = int(run(0).stdout)
    found = set()
    for moment in range(1, calls + 1, max(1, calls // 12)):
        place_table(stored, "older", table_of("others"), overwrite=True)
        assert run(moment).returncode == -signal.SIGKILL
        again = spatialdata.read_zarr(stored.path)
        found.add(again["older"].n_obs)
        assert set(again.tables) == {"older"}
    assert found == {2, 4}
    place_table(stored, "older", table_of("others"), overwrite=True)
    assert sorted(path.name for path in stored.path.parent.iterdir()) == ["study.zarr"]
