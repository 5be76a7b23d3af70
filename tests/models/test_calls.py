"""Models called on batches: what they may return, where they run, how often they are loaded."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.errors import InputError, ModelError
from scportrait_like.models import MODELS, ModelSpec, _loading, embed, resolve_model
from scportrait_like.raster import tiles
from scportrait_like.raster.heads import ModelHead
from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.sources import source_of
from scportrait_like.run.executors import EXECUTORS

from . import functions
from .conftest import make_windows
from .functions import CountedAdapter

# Registered models

PCA = resolve_model("pca", {}, 3).fitted(make_windows(np.random.default_rng(1), 40)[0], None)


@given(
    cuts=st.lists(st.integers(0, 12), max_size=4),
    name=st.sampled_from(list(MODELS)),
    dtype=st.sampled_from(["u2", "f4"]),
)
@settings(max_examples=40, deadline=None)
def test_any_split_into_batches_gives_the_same_bits(cuts, name, dtype):
    batch, masks = make_windows(np.random.default_rng(len(cuts)), 12, dtype=dtype)
    spec = PCA if name == "pca" else resolve_model(name)
    dimension = spec.dimension(2, 1)

    def run(begin, end):
        ids = np.arange(begin, end)
        return embed(spec, batch[begin:end], masks[begin:end], ids, dimension, "float64")

    bounds = sorted({0, 12, *cuts})
    parts = [run(begin, end) for begin, end in pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(parts), run(0, 12))


# What a model returns

BATCH = np.arange(4 * 2 * 9, dtype=np.uint16).reshape(4, 2, 1, 3, 3)
IDS = np.array([3, 5, 8, 90])


def returns(value):
    return resolve_model(lambda batch, embedding_dimension: value)


def call(spec, dimension=2, dtype="float32"):
    return embed(spec, BATCH, None, IDS, dtype=dtype, dimension=dimension)


GOOD = [
    [[1, 2]] * 4,
    np.ones((4, 2), bool),
    np.ones((4, 2), np.float16),
    np.ones((2, 4)).T,
    np.ones((4, 2), ">f8"),
]


@pytest.mark.parametrize("value", GOOD)
@pytest.mark.parametrize("dtype", ["float32", np.float64, "float16"])
def test_what_numpy_can_view_is_taken(value, dtype):
    found = call(returns(value), dtype=dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.asarray(value))


NAN = np.ones((4, 2))
NAN[[1, 3], 0] = np.nan
BAD = [
    (np.ones((4, 3)), r"returned the shape \(4, 3\), wanted is \(4, 2\)"),
    (np.ones((3, 2)), r"returned the shape \(3, 2\), wanted is \(4, 2\)"),
    (np.ones(4), r"returned the shape \(4,\), wanted"),
    (None, r"returned the shape \(\), wanted is \(4, 2\)"),
    (np.ones((4, 2), complex), r"returned complex128, wanted are real numbers \(float32\)"),
    (np.full((4, 2), "a"), r"returned <U1, wanted"),
    (np.full((4, 2), None), r"returned object, wanted"),
    (np.ones((4, 2), "M8[s]"), r"returned datetime64\[s\], wanted"),
    (NAN, r"returned NaN or infinity in 2 of 4 rows \(instances 5, 90\)"),
    (np.full((4, 2), np.inf), r"NaN or infinity in 4 of 4 rows \(instances 3, 5, 8, 90\)"),
    (np.full((4, 2), 1e300), r"values that are infinite as float32 in 4 of 4 rows"),
    ([[1, 2], [3]], r"failed on windows \(4, 2, 1, 3, 3\) of uint16: ValueError: .*inhomogeneous"),
]


@pytest.mark.parametrize(("value", "says"), BAD)
def test_what_cannot_be_taken(value, says):
    with pytest.raises(ModelError, match=says) as caught:
        call(returns(value))
    assert "<lambda>, batch of 4 instances (3 to 90): " in str(caught.value)


def test_nan_into_whole_numbers():
    with pytest.raises(ModelError, match="NaN or infinity in 2 of 4 rows"):
        call(returns(NAN), dtype="int32")
    spec = resolve_model("intensity_statistics")
    with pytest.raises(ModelError, match="NaN or infinity in 4 of 4 rows"):
        embed(spec, BATCH, np.zeros((4, 1, 1, 3, 3), bool), IDS, 13, "int32")


def failing(batch, embedding_dimension):
    return {}["weights"]


def test_an_exception_is_told():
    with pytest.raises(ModelError, match=r"KeyError: 'weights'") as caught:
        call(resolve_model(failing))
    assert "failing, batch of 4 instances (3 to 90): it failed on windows" in str(caught.value)
    assert f"({__file__}:" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


class Unloadable(CountedAdapter):
    error: Exception = OSError("no such weights")

    def load(self):
        raise self.error


def test_a_model_that_does_not_load(tmp_path):
    with pytest.raises(ModelError, match=r"model counted: it cannot be loaded .*: OSError: no su"):
        call(ModelSpec(Unloadable(tmp_path)))
    Unloadable.error = InputError("as it was")
    with pytest.raises(InputError, match=r"^as it was$"):
        call(ModelSpec(Unloadable(tmp_path)))


def test_a_view_of_the_batch_is_copied():
    batch = BATCH.astype(np.float32)
    found = embed(resolve_model(functions.first_pixels), batch, None, IDS, 2)
    assert not np.shares_memory(found, batch)


# Where it is loaded and called


@pytest.fixture
def windows_run(image, labels, monkeypatch):
    """A run over many small tiles: batches of a few cells in several workers."""
    monkeypatch.setattr(tiles, "TILE_EDGE", 64)
    chunked = [
        source_of(da.from_array(array, chunks=(*array.shape[:-2], 64, 64)))
        for array in (labels[None], image[:, None])
    ]

    def run(adapter, executor):
        head = ModelHead(ModelSpec(adapter), 2, "float64")
        return InstanceRun(*chunked, 16, head, batch_size=3, executor=executor)

    return run


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_it_is_loaded_once_a_process(tmp_path, windows_run, executor, on_gpu):
    adapter = CountedAdapter(tmp_path, on_gpu)
    run = windows_run(adapter, executor)
    found = run.find()
    assert len(run.plan(found).units) > 20
    rows = run.collect(found)["embedding"]
    assert rows.shape == (len(found.ids), 2)
    assert (rows > 0).all()
    loads, calls = adapter.notes("load"), adapter.notes("call")
    assert len(calls) > 30
    processes = [process for process, _ in loads]
    assert sorted(set(processes)) == sorted(processes)
    stays = on_gpu or not EXECUTORS[executor].separate
    assert (os.getpid() in processes) == stays
    assert {process for process, _ in calls} == set(processes)
    if on_gpu:
        assert len(set(loads + calls)) == len(processes) == 1


def test_threads_share_one_model_and_one_gpu_thread(tmp_path):
    batch = np.ones((3, 1, 1, 2, 2))
    for on_gpu in (False, True):
        folder = tmp_path / str(on_gpu)
        folder.mkdir()
        adapter = CountedAdapter(folder, on_gpu)
        barrier = threading.Barrier(4)

        def work(_, adapter=adapter, barrier=barrier):
            barrier.wait()
            for _ in range(5):
                embed(ModelSpec(adapter), batch, None, np.arange(3), 2)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert len(adapter.notes("load")) == 1
        calls = adapter.notes("call")
        assert len(calls) == 20
        assert len(set(calls)) == (1 if on_gpu else 4)
        assert ((os.getpid(), threading.get_ident()) in calls) is False


def test_the_queue_is_bounded():
    thread = _loading.OneThread(waiting=1)
    running, go_on = threading.Event(), threading.Event()

    def work():
        running.set()
        return go_on.wait(10)

    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(thread.call, work) for _ in range(5)]
        assert running.wait(10)
        deadline = threading.Event()
        deadline.wait(0.2)
        assert thread._pool._work_queue.qsize() <= 1
        go_on.set()
        assert all(call.result(10) for call in calls)


def test_exceptions_come_out_of_the_thread(tmp_path):
    class Failing(CountedAdapter):
        def load(self):
            return failing

    spec = ModelSpec(Failing(tmp_path, on_gpu=True))
    for _ in range(2):
        with pytest.raises(ModelError, match="KeyError: 'weights'"):
            call(spec)


def test_only_some_models_are_kept(tmp_path):
    adapters = []
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        adapters.append(CountedAdapter(folder))
        call(ModelSpec(adapters[-1]))
    assert len(_loading._models) == 4
    call(ModelSpec(adapters[-1]))
    assert len(adapters[-1].notes("load")) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_gpu_thread_of_its_own(tmp_path):
    """A data loader of torch forks."""
    adapter = CountedAdapter(tmp_path, on_gpu=True)
    call(ModelSpec(adapter))
    child = os.fork()
    if not child:
        threading.Timer(20, os._exit, (2,)).start()
        call(ModelSpec(adapter))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len({process for process, _ in adapter.notes("call")}) == 2


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_lambda_in_any_executor(image, labels, executor):
    spec = resolve_model(lambda batch, embedding_dimension: batch.max(axis=(2, 3, 4)))
    rasters = source_of(labels[None]), source_of(image[:, None])
    run = InstanceRun(*rasters, 64, ModelHead(spec, 3), executor=executor)
    found = run.find()
    wanted = [image[:, labels == label].max(axis=1) for label in found.ids]
    np.testing.assert_array_equal(run.collect(found)["embedding"], wanted)


def test_an_error_ends_the_run(image, labels):
    head = ModelHead(returns(np.ones((1, 1))), 4)
    run = InstanceRun(source_of(labels[None]), source_of(image[:, None]), 16, head)
    with pytest.raises(ModelError, match=r"returned the shape \(1, 1\), wanted is \("):
        run.collect(run.find())


def test_an_error_names_the_line_of_the_users_code(tmp_path, monkeypatch, windows):
    file = tmp_path / "calls_numpy.py"
    file.write_text(
        "import numpy as np\n\ndef f(batch, embedding_dimension):\n"
        "    return np.concatenate([batch, batch.sum(axis=0)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    batch, _ = windows(4)
    with pytest.raises(ModelError, match=r"calls_numpy\.py:4\): ValueError"):
        embed(resolve_model("calls_numpy:f"), batch, None, np.arange(4), 2)
