"""As a script: load an image and a mask, and cluster the pixels; to be killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from runs.killed import report_of, work

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    folder, store = Path(given["folder"]), Path(given["store"])
    done = work(folder, store, given["tile"], given["config"], "PixelClustering")
    print("REPORT", json.dumps(report_of(done)))
