"""Commands as processes: steps of a user's own, failures, terminals, Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from scportrait_like import names

from .helpers import PROGRAM, call, configure, start


def test_a_step_in_the_project_folder_is_found_and_lines_are_plain(
    own: Path, tmp_path: Path
) -> None:
    done = start("run", own.name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Count (data): complete" in done.stdout
    assert len((own / "count" / "data" / "units.txt").read_text().split()) == 40
    assert "40 units done" in done.stderr
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr


def test_a_failed_run_is_one_line_and_its_details_are_in_the_log(own: Path) -> None:
    configure(own, fail="true")
    failed = start("run", own)
    assert failed.returncode == 1
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error:")]
    assert "the moon is full" in line
    assert str(own / "processing.log") in line
    assert "Traceback" not in failed.stderr
    log = (own / "processing.log").read_text()
    assert "Traceback" in log
    assert "RuntimeError: the moon is full" in log
    loud = start("run", own, "--debug")
    assert loud.returncode == 1
    assert "RuntimeError: the moon is full" in loud.stderr
    assert "Traceback" in loud.stderr


def test_a_terminal_gets_a_bar(own: Path) -> None:
    configure(own, seconds=0.05)
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    process = subprocess.Popen([PROGRAM, "run", str(own)], stdout=slave, stderr=slave)
    os.close(slave)
    shown = ""
    while True:
        try:
            shown += os.read(master, 4096).decode(errors="replace")
        except OSError:  # the other end is closed
            break
    os.close(master)
    assert process.wait() == 0
    assert re.search(r"\d+%\|", shown)
    assert "Count (data): complete" in shown
    assert "units done" not in shown


def wait_for(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_ctrl_c_says_how_to_go_on(own: Path) -> None:
    configure(own, seconds=0.25, threads=2)
    process = subprocess.Popen(
        [PROGRAM, "run", str(own)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    units = own / "count" / ".data.run" / "units"
    wait_for(lambda: units.is_dir() and len(list(units.glob("u*"))) >= 3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == 130
    last = said.strip().splitlines()[-1]
    assert last == (f"interrupted; what was finished is kept. To go on: scportrait-like run {own}")
    assert "Traceback" not in said
    assert "interrupted" in call("status", own).stdout
    configure(own, seconds=0.25, threads=2)
    gone_on = start("run", own)
    assert gone_on.returncode == 0, gone_on.stderr
    found = re.search(r"40 units done \((\d+) lay finished\)", gone_on.stderr)
    assert found
    assert int(found[1]) >= 3


@pytest.mark.slow
def test_the_script_of_the_template_runs_and_runs_again(
    tiffs: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    assert call("new", folder).exit_code == 0
    config = folder / "config.yml"
    config.write_text(config.read_text().replace("image_size: 128", "image_size: 32"))
    (folder / "input").mkdir()
    tiffs[0].rename(folder / "input" / "image.ome.tif")
    tiffs[1].rename(folder / "input" / "labels.tif")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "HDF5CellExtraction (data): complete" in done.stdout
        stamp = (folder / "extraction" / "data" / names.H5SC_FILE).stat()
    assert (folder / "report" / "report.html").is_file()
    assert stamp.st_mtime < time.time()
