"""The metadata of a SpatialData store, read and consolidated as plain JSON.

Neither zarr nor spatialdata is imported, so that workers and ``status`` can ask what a store holds
in milliseconds. zarr format 3 (what spatialdata 0.7 writes) and format 2 (older stores) are read;
only format 3 is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scportrait_like.errors import StoreError

KINDS: Final = ("images", "labels", "points", "shapes", "tables")
RASTERS: Final = ("images", "labels")
_CONSOLIDATED: Final = "consolidated_metadata"
_STORE_MARK: Final = "spatialdata_attrs"

Json = dict[str, Any]


def read_json(path: Path) -> Json | None:
    """The JSON object in a file; None where there is no such file or it is cut short."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_node(folder: Path) -> Json | None:
    """The metadata of a zarr group or array, format 2 translated to the keys of format 3."""
    node = read_json(folder / "zarr.json")
    if node is not None:
        return node
    for file, node_type in ((".zgroup", "group"), (".zarray", "array")):
        old = read_json(folder / file)
        if old is not None:
            attributes = read_json(folder / ".zattrs") or {}
            return {**old, "node_type": node_type, "attributes": attributes}
    return None


def read_root(store: Path) -> Json | None:
    """The metadata of a store's root; None where there is no store.

    Raises
    ------
    StoreError
        If something else than a SpatialData store lies there.
    """
    if not store.exists() or (store.is_dir() and not any(store.iterdir())):
        return None
    advice = "Move it away, or name another project folder."
    if not store.is_dir():
        raise StoreError(f"{store} is a file, where a SpatialData folder is expected. {advice}")
    root = read_node(store)
    if root is None:
        listing = ", ".join(sorted(path.name for path in store.iterdir())[:5])
        raise StoreError(
            f"{store} is not a zarr store: it holds {listing}, but no readable zarr.json or "
            f".zgroup. {advice}"
        )
    # Stores of spatialdata before 0.1 carry no mark; their groups tell.
    if _STORE_MARK in root["attributes"] or (
        root["zarr_format"] == 2 and any((store / kind).is_dir() for kind in KINDS)
    ):
        return root
    raise StoreError(
        f"{store} is a zarr {root['node_type']}, but not one of SpatialData: its attributes have "
        f"no {_STORE_MARK!r}. {advice}"
    )


def element_kinds(store: Path) -> dict[str, str]:
    """The complete elements of a store: name to kind (``images``, ``labels``, ...).

    What lies on the disk counts, not what the consolidated metadata say. Names that start with a
    dot and elements cut short (a foreign process was killed while it wrote them) are left out.
    """
    found: dict[str, str] = {}
    for kind in KINDS:
        for folder in _subfolders(store / kind):
            if _is_complete(folder, kind):
                found[folder.name] = kind
    return found


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _is_complete(folder: Path, kind: str) -> bool:
    """Whether what spatialdata writes last, or needs to open the element, is there."""
    node = read_node(folder)
    if node is None:
        return False
    attributes = node["attributes"]
    if kind in RASTERS:
        paths = dataset_paths(attributes)
        return bool(paths) and all(read_node(folder / path) is not None for path in paths)
    if kind == "tables":
        return "version" in attributes
    if _STORE_MARK not in attributes:
        return False
    # Shapes of the first format are zarr arrays.
    return (folder / f"{kind}.parquet").exists() or (folder / "coords").exists()


def _multiscale(attributes: Json) -> Json:
    ome = attributes.get("ome", attributes)
    scales = ome.get("multiscales") or [{}]
    first: Json = scales[0]
    return first


def dataset_paths(attributes: Json) -> list[str]:
    """The paths of a raster element's levels, finest first."""
    return [dataset["path"] for dataset in _multiscale(attributes).get("datasets", [])]


def channel_labels(attributes: Json) -> list[str] | None:
    """The channel names of an image element, None if it has none."""
    ome = attributes.get("ome", attributes)
    channels = ome.get("omero", attributes.get("channels_metadata", {})).get("channels")
    if channels is None or any("label" not in channel for channel in channels):
        return None
    return [str(channel["label"]) for channel in channels]


def coordinate_transforms(attributes: Json) -> dict[str, Json]:
    """The encoded (NGFF) transformation to each coordinate system, by the system's name."""
    encoded = attributes.get("coordinateTransformations")
    if encoded is None:
        encoded = _multiscale(attributes).get("coordinateTransformations", [])
    return {entry["output"]["name"]: entry for entry in encoded if "output" in entry}


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Json]]:
    """All nodes at and below a folder; the chunks below an array are not looked at."""
    node = read_json(folder / "zarr.json")
    if node is None:
        return
    if node["node_type"] == "array":
        yield prefix, node
        return
    # zarr wants each group below the root to say that its own consolidated metadata are empty.
    yield prefix, {**node, _CONSOLIDATED: _wrap({})}
    for child in _subfolders(folder):
        yield from _walk(child, f"{prefix}/{child.name}")


def _wrap(metadata: Json) -> Json:
    return {"kind": "inline", "must_understand": False, "metadata": metadata}


def consolidated_root(store: Path, elements: dict[str, str], groups: dict[str, Json]) -> Json:
    """The root's zarr.json with consolidated metadata.

    Parameters
    ----------
    store
        A store in zarr format 3.
    elements
        Those to list: name to kind.
    groups
        The zarr.json of kinds where it is about to change.
    """
    root = read_json(store / "zarr.json")
    if root is None:
        raise StoreError(f"{store} has no readable zarr.json.")
    nodes: Json = {}
    for kind in KINDS:
        group = groups.get(kind) or read_json(store / kind / "zarr.json")
        if group is not None:
            nodes[kind] = {**group, _CONSOLIDATED: _wrap({})}
    for name, kind in elements.items():
        nodes.update(_walk(store / kind / name, f"{kind}/{name}"))
    return {**root, _CONSOLIDATED: _wrap(nodes)}


def listed_elements(root: Json) -> set[str] | None:
    """``kind/name`` of the elements in a root's consolidated metadata; None without such."""
    consolidated = root.get(_CONSOLIDATED)
    if consolidated is None:
        return None
    return {path for path in consolidated["metadata"] if path.count("/") == 1}


def labels_group(store: Path, names: list[str]) -> Json | None:
    """The zarr.json that the labels group should have, None if it has it.

    OME-Zarr lists the labels by name in their group's attributes.
    """
    group = read_json(store / "labels" / "zarr.json")
    if group is None:
        return None
    ome = group["attributes"].get("ome", {})
    listed = ome.get("labels", [])
    wanted = [name for name in listed if name in names]
    wanted += [name for name in names if name not in listed]
    if listed == wanted:
        return None
    return {**group, "attributes": {**group["attributes"], "ome": {**ome, "labels": wanted}}}
