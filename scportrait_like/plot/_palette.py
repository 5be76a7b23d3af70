"""Colours of clusters: a number has the same colour in every picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

# The seven of Okabe and Ito, then those farthest (CIEDE2000) from all before them, from white,
# black and NO_CLUSTER, as seen by most readers and by those who lack a kind of cone: a colour that
# merges with another for them counts half as far. All 40 are at least 10 apart for most readers.
PALETTE: Final = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#4d4801",
    "#802445", "#3603e0", "#00ffa2", "#8e73fa", "#9db06d", "#3f4372", "#446d41", "#9c7c4a",
    "#ba2b9a", "#fcbef0", "#b83032", "#a207f7", "#8dd8b9", "#975772", "#abe26f", "#7a2398",
    "#a384c2", "#fe7954", "#714f80", "#e732e5", "#fd84f0", "#344ed0", "#745727", "#d6bf85",
    "#b85f63", "#feaba8", "#ff3f9a", "#4e9105", "#007069", "#b5961b", "#00c895", "#44dde6",
)  # fmt: skip
NO_CLUSTER: Final = "#e4e4e4"
# Beyond the palette it is used again, paler, then darker, and so on.
_ROUNDS: Final = (0.0, 0.45, -0.4, 0.25, -0.2, 0.65, -0.6)
_SHADES: Final = (-0.35, 0.45)  # the darkest and the palest of a metacluster's clusters

Colours = npt.NDArray[np.float64]


def cluster_colours(numbers: Iterable[int]) -> Colours:
    """Return the colours of clusters.

    Parameters
    ----------
    numbers
        n numbers, counted from 1; 0 and below are no cluster.

    Returns
    -------
    numpy.ndarray
        (n, 3) float64 in [0, 1]. The first 40 are told apart well; from 281 on they come again.
    """
    wanted = np.asarray(list(numbers), np.int64)
    k = (wanted - 1) % (len(PALETTE) * len(_ROUNDS))
    plain = _of(PALETTE)[k % len(PALETTE)]
    colours = _mixed(plain, np.asarray(_ROUNDS)[k // len(PALETTE)])
    colours[wanted <= 0] = _of((NO_CLUSTER,))
    return colours


def shades(metaclusters: npt.NDArray[np.int64]) -> Colours:
    """Return a colour (K, 3) for each of K clusters: a shade of that of its metacluster (K,)."""
    amounts = np.zeros(len(metaclusters))
    for number in np.unique(metaclusters):
        members = np.flatnonzero(metaclusters == number)
        if len(members) > 1:
            amounts[members] = np.linspace(*_SHADES, len(members))
    return _mixed(cluster_colours(metaclusters.tolist()), amounts)


def ink_upon(colour: Colours) -> str:
    """Return black or white, whichever is read better upon a colour (3,)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    # Equal contrast to both, by the definition of WCAG 2.
    return "black" if luminance > 0.179 else "white"


def _of(texts: tuple[str, ...]) -> Colours:
    return np.array([[int(text[k : k + 2], 16) / 255 for k in (1, 3, 5)] for text in texts])


def _mixed(colours: Colours, amounts: Colours) -> Colours:
    """Mix (n, 3) with white, or where an amount (n,) is negative with black."""
    share = np.abs(amounts)[:, None]
    white: Colours = (amounts > 0)[:, None].astype(np.float64)
    return np.asarray(colours * (1 - share) + share * white)
