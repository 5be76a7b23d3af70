"""Bring elements into a SpatialData store, out of it, and its lists of them up to date.

Two files list what a store holds: the root's zarr.json (its consolidated metadata, which readers
trust) and that of the labels group (OME-Zarr). Both are replaced after the element itself, so a
process killed in between leaves lists that are out of date, which `sync_lists` puts right; what
lies on the disk is what counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scportrait_like import names
from scportrait_like.io import placement
from scportrait_like.io import zarr_metadata as meta


def place_element(
    scratch: Path, store: Path, target: Path, kind: str, name: str, attributes: Mapping[str, Any]
) -> None:
    """Put the one element of a new store within `scratch` into the store `target`, in one step.

    Whatever is missing of ``<target>/<kind>/<name>`` comes with it.
    """
    new = store / kind / name
    _set_attributes(new, attributes)
    sync_lists(store, scratch)
    placement.flush_tree(store)
    if meta.read_root(target) is None:
        placement.place_folder(store, target, scratch)
        return
    if not (target / kind).exists():
        placement.place_folder(store / kind, target / kind, scratch)
    else:
        if meta.read_node(target / kind) is None:
            (store / kind / "zarr.json").rename(target / kind / "zarr.json")
        placement.place_folder(
            new,
            target / kind / name,
            scratch,
            hide=lambda: sync_lists(target, scratch, without=name),
        )
    sync_lists(target, scratch)


def remove_element(scratch: Path, target: Path, kind: str, name: str) -> None:
    """Take an element out of the store `target`."""
    # First from the lists, so that at no moment a reader is led to what is gone.
    sync_lists(target, scratch, without=name)
    placement.remove_folder(target / kind / name, scratch)


def sync_lists(store: Path, scratch: Path, without: str | None = None) -> None:
    """Make the lists say what lies in the store.

    Parameters
    ----------
    store
        A store in zarr format 3.
    scratch
        A scratch folder beside it.
    without
        An element to leave out.
    """
    for file, content in outdated_lists(store, without).items():
        placement.replace_file(file, _dump(content), scratch)


def outdated_lists(store: Path, without: str | None = None) -> dict[Path, meta.Json]:
    """The zarr.json files that do not say what lies in the store, and what they should say."""
    elements = {name: kind for name, kind in meta.element_kinds(store).items() if name != without}
    labels = meta.labels_group(store, [n for n, kind in elements.items() if kind == "labels"])
    groups = {} if labels is None else {"labels": labels}
    root = meta.consolidated_root(store, elements, groups)
    outdated = {store / kind / "zarr.json": group for kind, group in groups.items()}
    if root != meta.read_json(store / "zarr.json"):
        outdated[store / "zarr.json"] = root
    return outdated


def _set_attributes(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Add our own attributes to an element that is not in place yet."""
    node = meta.read_json(folder / "zarr.json") or {}
    node["attributes"][names.ATTRS_KEY] = dict(attributes)
    (folder / "zarr.json").write_text(_dump(node), encoding="utf-8")


def _dump(content: meta.Json) -> str:
    return json.dumps(content, indent=2)
