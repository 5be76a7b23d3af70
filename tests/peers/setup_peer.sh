#!/usr/bin/env bash
# Makes the peer's environment: tests/peers/setup_peer.sh [TARGET]   (TARGET: .venv-peers in the checkout)
# PYTHON names the interpreter, e.g. PYTHON=python3.11.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
target="${1:-$here/../../.venv-peers}"

"${PYTHON:-python3}" -m venv "$target"
"$target/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"

# torchvision's wheel is built for the CUDA build of torch. Beside a CPU build its compiled operators (nms and
# the like) cannot be loaded, and it then stops at import, where it registers shapes for operators that are not
# there. scPortrait needs only its pure Python transforms, so let it skip those registrations, as it already does
# for all its other operators. Nothing is changed where torchvision imports by itself.
if ! "$target/bin/python" -c "import torchvision" 2>/dev/null; then
    registrations="$("$target/bin/python" -c \
        "import sysconfig; print(sysconfig.get_path('purelib'))")/torchvision/_meta_registrations.py"
    sed -i -E \
        's/^@(torch\.library\.register_fake\("torchvision::[a-z_]+"\))$/@(\1 if torchvision.extension._has_ops() else lambda f: f)/' \
        "$registrations"
fi

# The first import writes byte code: once here, so that it does not fall into a timed run.
"$target/bin/python" -c "
from scportrait.io import read_h5sc
from scportrait.pipeline.extraction import HDF5CellExtraction
from scportrait.pipeline.featurization import CellFeaturizer
from scportrait.pipeline.project import Project
from scportrait.tools.ml.datasets import H5ScSingleCellDataset
import scportrait; print('scportrait', scportrait.__version__, 'is ready')
"
