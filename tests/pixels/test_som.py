"""Training is flowsom's, and what is kept of it predicts what flowsom's own model does."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import flowsom
import numpy as np
import pytest

from scportrait_like.errors import InputError, MissingInputError, ModelError
from scportrait_like.pixels.prepared import Percentiles, Preparation
from scportrait_like.pixels.sampling import Sampling, sample_of, sampling_stages
from scportrait_like.pixels.som import flowsom_in, trained_in, training_stage
from scportrait_like.pixels.som_settings import SomSettings
from scportrait_like.pixels.stages import PixelTask
from scportrait_like.pixels.trained_som import TrainedSom

from .sampled import image_of, run

# Of flowsom's own objects.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:mudata")

Pixels = np.ndarray[Any, Any]
CHANNELS = ["DNA", "CD3", "CD20"]


def settings(**changed: Any) -> SomSettings:
    given: dict[str, Any] = {"n_clusters": 4, "xdim": 4, "ydim": 3, "seed": 5, **changed}
    return SomSettings.of(CHANNELS, **given)


@pytest.fixture(scope="module")
def arrays() -> list[Pixels]:
    rng = np.random.default_rng(1)
    kinds = rng.random((5, 3)) * 10
    made = []
    for shape in ((60, 70), (40, 50)):
        which = rng.integers(0, 5, shape)
        array = kinds[which].transpose(2, 0, 1) + rng.normal(0, 0.4, (3, *shape))
        array[1, :4] = np.nan
        made.append(array.astype(np.float32))
    return made


def trained(
    folder: Path, arrays: list[Pixels], chosen: SomSettings, executor: Any = "inline"
) -> PixelTask:
    images = [image_of(array, (32, 32), f"image{n}") for n, array in enumerate(arrays)]
    stages = [*sampling_stages(Sampling(0.5, 10**6, 3)), training_stage(chosen, keep=True)]
    return run(folder, images, stages, executor)


def rows_to_ask(codes: Pixels, n: int = 20_000) -> Pixels:
    """Rows about the codes, among them codes themselves and middles of two."""
    rng = np.random.default_rng(0)
    near = codes[rng.integers(0, len(codes), n)] + rng.normal(0, 0.5, (n, codes.shape[1]))
    return np.concatenate([near, codes, (codes[1:] + codes[:-1]) / 2])


@pytest.mark.parametrize("model", ["default", pytest.param("batch", marks=pytest.mark.slow), None])
def test_it_is_flowsoms_training(tmp_path: Path, arrays: list[Pixels], model: str | None) -> None:
    chosen = settings(model=model, arguments={"rlen": 5})
    task = trained(tmp_path / "run", arrays, chosen)
    sample = sample_of(task)
    kind = flowsom.models.BatchFlowSOMEstimator if model == "batch" else None
    more = {} if kind is None else {"model": kind}
    table = ad.AnnData(sample.rows)
    fsom = flowsom.FlowSOM(table, n_clusters=4, xdim=4, ydim=3, seed=5, rlen=5, **more)
    found = trained_in(task)
    assert np.array_equal(found.codes, fsom.model.codes)
    assert np.array_equal(found.metaclusters, fsom.model._y_codes + 1)
    assert found.channels == tuple(CHANNELS)
    assert (found.xdim, found.ydim, found.n_nodes, found.n_metaclusters) == (4, 3, 12, 4)
    assert found.is_euclidean
    assert found.sample["drawn"] == len(sample.rows)
    assert found.settings["arguments"] == {"rlen": 5}

    rows = rows_to_ask(found.codes)
    wanted = fsom.model.cluster_model.predict(rows)
    assert np.array_equal(found.predict(rows), wanted)
    assert np.array_equal(pickle.loads(pickle.dumps(found)).predict(rows), wanted)
    assert found.predict(rows[:0]).shape == (0,)
    assert np.array_equal(found.mapping.to_numpy(), found.metaclusters)
    assert found.mapping.name == "metaclustering"
    assert found.mapping.index.tolist() == list(range(1, 13))


def test_random_numbers_of_the_user_stay(tmp_path: Path, arrays: list[Pixels]) -> None:
    np.random.seed(3)  # noqa: NPY002
    wanted = np.random.random(3)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    trained(tmp_path / "run", arrays, settings())
    assert np.array_equal(np.random.random(3), wanted)  # noqa: NPY002


def test_executors_train_the_same(tmp_path: Path, arrays: list[Pixels]) -> None:
    first = trained_in(trained(tmp_path / "inline", arrays, settings()))
    other = trained_in(trained(tmp_path / "threads", arrays, settings(), "threads"))
    assert first.as_json() == other.as_json()


@pytest.mark.slow
def test_a_process_trains_the_same(tmp_path: Path, arrays: list[Pixels]) -> None:
    chosen = settings(model="batch")
    first = trained_in(trained(tmp_path / "inline", arrays, chosen))
    other = trained_in(trained(tmp_path / "apart", arrays, chosen, "processes"))
    assert first.as_json() == other.as_json()


def test_flowsoms_own_object(tmp_path: Path, arrays: list[Pixels]) -> None:
    chosen = settings(instance_key="id", region_key="region", spatial_key="where")
    task = trained(tmp_path / "run", arrays, chosen)
    sample, fsom = sample_of(task), flowsom_in(task)
    assert isinstance(fsom, flowsom.FlowSOM)
    cells = fsom.get_cell_data()
    assert cells.X.dtype == np.float64
    assert np.array_equal(cells.X, sample.rows)
    assert list(cells.var_names) == CHANNELS
    assert cells.obs["id"].tolist() == list(range(1, len(sample.rows) + 1))
    assert cells.obs["region"].dtype == "category"
    assert set(cells.obs["region"]) == {"image0", "image1"}
    for row in (0, 7, -1):
        image = int(cells.obs["region"].iloc[row][-1])
        y, x = cells.obsm["where"][row]
        assert np.array_equal(arrays[image][:, y, x].astype(float), cells.X[row])
    # It works as any other does.
    assert fsom.get_cluster_data().obsm["layout"].shape == (12, 2)
    assert np.array_equal(fsom.model.predict(sample.rows), fsom.metacluster_labels)
    assert np.array_equal(
        fsom.metacluster_labels + 1, trained_in(task).metaclusters[fsom.cluster_labels]
    )
    new = fsom.new_data(ad.AnnData(cells.X[:100].copy(), var=cells.var[[]]))
    assert len(new.cluster_labels) == 100
    assert len(fsom.subset(np.arange(50)).cluster_labels) == 50
    fsom.metacluster(3)


def test_a_volume_has_three_coordinates(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((3, 4, 20, 30))
    stages = [*sampling_stages(Sampling(0.3, 10**6, 3)), training_stage(settings(), keep=True)]
    task = run(tmp_path / "run", [image_of(volume, (2, 8, 30))], stages)
    cells = flowsom_in(task).get_cell_data()
    z, y, x = cells.obsm["spatial"].T
    assert np.array_equal(volume[:, z, y, x].T, cells.X)


def test_importance(tmp_path: Path, arrays: list[Pixels]) -> None:
    """flowsom scales the rows that it trains on, and not those that it predicts."""
    importance = np.array([2.0, 1.0, 0.5])
    task = trained(tmp_path / "run", arrays, settings(arguments={"importance": importance}))
    found, fsom = trained_in(task), flowsom_in(task)
    rows = rows_to_ask(found.codes)
    assert np.array_equal(found.predict(rows), fsom.model.cluster_model.predict(rows))
    assert found.settings["arguments"] == {"importance": [2.0, 1.0, 0.5]}


def test_equal_codes(tmp_path: Path, arrays: list[Pixels]) -> None:
    task = trained(tmp_path / "run", arrays, settings(model="batch"))
    found = trained_in(task)
    codes = found.codes.copy()
    codes[7] = codes[2]
    codes[0] = codes[11]
    twins = TrainedSom(**{**vars(found), "codes": codes})
    model = flowsom.models.batch.BatchSOMEstimator()
    model.codes, model._is_fitted = codes, True
    rows = rows_to_ask(codes)
    assert np.array_equal(twins.predict(rows), model.predict(rows))


def manhattan() -> type:
    """An estimator of a user's own, whose class no other process can import."""

    class Manhattan(flowsom.models.SOMEstimator):
        def predict(self, X: Pixels, y: None = None) -> Pixels:
            distances = np.abs(X[:, None] - self.codes[None]).sum(axis=2)
            self.labels_ = distances.argmin(axis=1)
            self.distances = distances.min(axis=1)
            return self.labels_

    class Estimator(flowsom.models.BaseFlowSOMEstimator):
        def __init__(
            self, cluster_model=Manhattan, metacluster_model=flowsom.models.ConsensusCluster, **kw
        ):
            super().__init__(cluster_model, metacluster_model, **kw)

    return Estimator


def test_an_estimator_of_ones_own(tmp_path: Path, arrays: list[Pixels]) -> None:
    chosen = settings(model=manhattan())
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    task = trained(tmp_path / "run", arrays, chosen)
    found = trained_in(task)
    assert not found.is_euclidean
    rows = rows_to_ask(found.codes, 500)
    wanted = np.abs(rows[:, None] - found.codes[None]).sum(axis=2).argmin(axis=1)
    assert np.array_equal(found.predict(rows), wanted)
    found.save(tmp_path / "model.json")
    loaded = TrainedSom.load(tmp_path / "model.json")
    with pytest.raises(ModelError, match="cannot be imported here"):
        loaded.predict(rows)


def test_a_model_that_is_more_than_its_codes(tmp_path: Path, arrays: list[Pixels]) -> None:
    class Learned(flowsom.models.SOMEstimator):
        def fit(self, X: Pixels, y: None = None) -> Any:
            super().fit(X)
            self.order = np.arange(len(self.codes))[::-1]
            return self

        def predict(self, X: Pixels, y: None = None) -> Pixels:
            super().predict(X)
            self.labels_ = getattr(self, "order", np.arange(len(self.codes)))[self.labels_]
            return self.labels_

    with pytest.raises(ModelError, match="predicts by more than its codes"):
        trained(tmp_path / "run", arrays, settings(arguments={"cluster_model": Learned}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_clusters": 13}, r"13 metaclusters \(n_clusters\) cannot be made of 12 nodes"),
        ({"n_clusters": 0}, "n_clusters must be from 1"),
        ({"xdim": 2.0}, "xdim must be a whole number"),
        ({"xdim": 1, "ydim": 1, "n_clusters": 1}, "two nodes at least"),
        ({"seed": -1}, "random_state must be from 0"),
        ({"seed": None}, "random_state must be a whole number"),
        ({"model": "kohonen"}, "one of default, batch, not 'kohonen'"),
        ({"model": 3}, "model must be a class"),
        ({"arguments": {"cols_to_use": [0]}}, "use channels"),
        ({"arguments": {"seed": 1}}, "use random_state"),
        ({"arguments": {"rlenn": 1}}, "flowsom does not know rlenn; it takes"),
        ({"arguments": {"num_batches": 5}}, "flowsom does not know num_batches"),
        ({"arguments": {"importance": [1.0, 2.0]}}, "importance must be 3 finite numbers"),
        ({"arguments": {"mst": 2}}, "^mst=2 is not allowed: flowsom's .* leave it out$"),
        ({"arguments": {"mst": 0}, "model": "batch"}, "mst=0 is not allowed"),
        ({"xdim": 101, "ydim": 100}, "has 10,100 nodes.* 10,000 are allowed"),
        ({"xdim": 10_001, "ydim": 1}, "xdim must be from 1 to 10000"),
        ({"arguments": {"codes": np.zeros((3, 3))}}, r"must have the shape \(12, 3\)"),
    ],
)
def test_bad_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(**wrong)


def test_arguments_of_the_batch_estimator() -> None:
    for model in ("batch", flowsom.models.BatchFlowSOMEstimator):
        chosen = settings(model=model, arguments={"num_batches": 5})
        assert chosen.estimator.endswith(":BatchFlowSOMEstimator")


def test_bad_samples(tmp_path: Path, arrays: list[Pixels]) -> None:
    with pytest.raises(InputError, match="fewer than the 10000 nodes of a map of 100 x 100"):
        trained(tmp_path / "few", arrays, settings(xdim=100, ydim=100))
    constant = [array.copy() for array in arrays]
    for array in constant:
        array[2] = 7
        array[0] = 0
    with pytest.raises(InputError, match=r"tell nothing apart: DNA \(0\), CD20 \(7\); leave"):
        trained(tmp_path / "constant", constant, settings())


def test_a_failure_of_flowsom_names_it(tmp_path: Path, arrays: list[Pixels]) -> None:
    chosen = settings(arguments={"init": True, "initf": lambda X, x, y: 1 / 0})
    with pytest.raises(ModelError, match=r"flowsom failed to train .* ZeroDivisionError"):
        trained(tmp_path / "run", arrays, chosen)


def a_map(**changed: Any) -> TrainedSom:
    rng = np.random.default_rng(0)
    parts: dict[str, Any] = {
        "channels": ("a", "b"),
        "codes": rng.random((6, 2)) * np.pi,
        "metaclusters": np.array([1, 2, 1, 3, 2, 1]),
        "xdim": 3,
        "ydim": 2,
        "cluster_model": "flowsom.models.som_estimator:SOMEstimator",
        "estimator": "flowsom.models.flowsom_estimator:FlowSOMEstimator",
        "parameters": {"xdim": 3, "alpha": [0.05, 0.01]},
        "preparation": Preparation(sigma=(2.0, 2.0), p_sum=None).as_json(),
        "percentiles": Percentiles((0.1, 1 / 3), None, (1.0, 2.0)).as_json(),
    }
    return TrainedSom(**{**parts, **changed})


def numbers_of(**changed: Any) -> dict[str, Any]:
    """Percentiles of its preparation, as a file has them."""
    return {"channel": [0.1, 0.2], "threshold": None, "post": [1.0, 2.0]} | changed


def test_saved_and_loaded(tmp_path: Path) -> None:
    saved = a_map()
    saved.save(tmp_path / "model.json")
    loaded = TrainedSom.load(tmp_path / "model.json")
    assert loaded.codes.tobytes() == saved.codes.tobytes()
    assert loaded.codes.dtype == np.float64
    assert np.array_equal(loaded.metaclusters, saved.metaclusters)
    assert loaded.as_json() == saved.as_json()
    assert loaded.channels == ("a", "b")
    how, numbers = loaded.prepared_by()
    assert how == Preparation(sigma=(2.0, 2.0), p_sum=None)
    assert numbers == Percentiles((0.1, 1 / 3), None, (1.0, 2.0))
    assert a_map(preparation=None, percentiles=None).prepared_by() == (None, None)
    nothing = Preparation(None, None, None).as_json()
    for none in (None, Percentiles(None, None, None).as_json()):
        assert a_map(preparation=nothing, percentiles=none).prepared_by()[1] is not None
    rows = rows_to_ask(saved.codes, 1000)
    assert np.array_equal(loaded.predict(rows), saved.predict(rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "else"}, "not a self-organising map that this package saved"),
        ({"version": 99}, "format version 99, this package reads 1"),
        ({"codes": None}, "is damaged"),
        ({"codes": [[1, 2]]}, "is damaged: a grid of 3 x 2 nodes and 2 channels"),
        ({"codes": [[1, float("nan")]] * 6}, "not all finite"),
        ({"metaclusters": [0] * 6}, "count from 1"),
        ({"metaclusters": ["x"] * 6}, "is damaged"),
        ({"channels": ["a", "a"]}, "named twice"),
        ({"channels": 3}, "is damaged"),
        ({"channels": [1, 2]}, "not all names"),
        ({"xdim": "3"}, "whole numbers above 0"),
        ({"sample": 3}, "is damaged"),
        ({"preparation": [1]}, "preparation"),
        ({"percentiles": ...}, "it has no 'percentiles'"),
        ({"percentiles": None}, "has p=99, but no percentiles are given for it as channel"),
        ({"preparation": None}, "it has percentiles, but no preparation"),
        ({"preparation": {"p": 99}}, "a stored Preparation has"),
        ({"percentiles": {"channel": [1, 2]}}, "a stored Percentiles has"),
        ({"percentiles": numbers_of(channel=[1])}, "1 percentiles are given as channel, not 2"),
        ({"percentiles": numbers_of(post=[1, 2, 3])}, "3 percentiles are given as post, not 2"),
        ({"percentiles": numbers_of(channel=[1, 0])}, "finite numbers above 0, not 0"),
        ({"percentiles": numbers_of(post=[1, float("inf")])}, "finite numbers above 0, not inf"),
        ({"percentiles": numbers_of(post=["1", 2])}, "no percentiles of a preparation"),
        ({"percentiles": numbers_of(threshold=3)}, "p_sum=None, but percentiles are given"),
    ],
)
def test_damaged_files(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = a_map().as_json() | change
    path = tmp_path / "model.json"
    kept = {name: value for name, value in content.items() if value is not ...}
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match=message) as raised:
        TrainedSom.load(path)
    assert str(path) in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="there is no file"):
        TrainedSom.load(tmp_path / "absent.json")
    with pytest.raises(MissingInputError, match="there is no file"):
        TrainedSom.load(tmp_path)
    for content in (b"", b'{"format"', b"\xff\xfe\x00", b"[]", b"3"):
        (tmp_path / "model.json").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.json"):
            TrainedSom.load(tmp_path / "model.json")


@pytest.mark.parametrize("name", ["subprocess:Popen", "absent_module:Model", "x", "numpy:absent"])
def test_only_models_are_called(name: str) -> None:
    with pytest.raises(ModelError, match="cluster model"):
        a_map(cluster_model=name, parameters={"args": "false"}).predict(np.zeros((1, 2)))


def test_rows_must_fit() -> None:
    with pytest.raises(InputError, match=r"shape \(m, 2\)"):
        a_map().predict(np.zeros((4, 3)))


def test_nothing_heavy_is_imported() -> None:
    """Settings, stages and a loaded map need no flowsom."""
    code = """
import sys
from scportrait_like.pixels.som import training_stage
from scportrait_like.pixels.som_settings import SomSettings
chosen = SomSettings.of(["a", "b"], arguments={"rlen": 3}, model="batch")
training_stage(chosen)
bad = {"flowsom", "pandas", "anndata", "sklearn", "dask", "spatialdata"} & set(sys.modules)
assert not bad, bad
"""
    subprocess.run([sys.executable, "-c", code], check=True)
