"""A script: streams whose files are open are iterated in forked processes and here, all at once.

python forked.py H5SC PROJECT DIAMETER
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from typing import Any

from scportrait_like.training import InstanceStream


def digest(items: Any) -> bytes:
    hasher = hashlib.blake2b()
    for item in items:
        for part in item:
            hasher.update(part.tobytes())
    return hasher.digest()


def main() -> None:
    h5sc, project, diameter = sys.argv[1:]
    streams = [
        InstanceStream(h5sc, batch_size=5),
        InstanceStream(project, diameter=int(diameter), batch_size=5),
    ]
    wanted = [[digest(stream.part(part, 2)) for part in range(2)] for stream in streams]
    begun = [iter(stream) for stream in streams]
    for each in begun:
        next(each)
    children = []
    for part in range(2):
        child = os.fork()
        if not child:
            # Whatever happens, a child must not run the parent's code.
            code = 1
            try:
                threading.Timer(60, os._exit, [3]).start()
                found = [digest(stream.part(part, 2)) for stream in streams]
                code = 0 if found == [digests[part] for digests in wanted] else 2
            finally:
                os._exit(code)
        children.append(child)
    here = [[digest(stream.part(part, 2)) for part in range(2)] for stream in streams]
    assert here == wanted
    assert all(sum(1 for _ in each) for each in begun)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0], f"the children ended with {codes}"
    print("the same everywhere")


if __name__ == "__main__":
    main()
