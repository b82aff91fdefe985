"""A command that gets a signal to end says what it kept, exits with the code of the signal, and leaves no child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest

from bitplan.planner.cli.ending import SIGNALS, answering, interrupt_of
from bitplan.planner.cli.output import Interrupted, guarded
from bitplan.planner.interrupts import keeps

# A verb that starts a process, keeps something, and then stays in one call into C, which no interrupt ends.
STUCK = """
import hashlib, subprocess, sys
import bitplan.planner.cli.ending as ending, bitplan.planner.views.inspect as inspect
from bitplan.planner.cli import main
from bitplan.planner.interrupts import keeps
from tqdm import tqdm
def stuck(*_):
    keeps("half of it is kept")
    bar = tqdm(desc="half", total=2)
    print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
ending.PATIENCE, inspect.inspect_file = 0.1, stuck
main(["inspect", "x"])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_call_into_c_does_not_delay_the_end() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGTERM)
    _, says = process.communicate(timeout=60)
    assert says.splitlines()[-1] == "bitplan: ended by SIGTERM; half of it is kept"
    assert process.returncode == 143
    child.wait(60)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_is_one_line_and_its_code(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    said = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as ended, answering(lambda code: None), guarded("solve x"):
        keeps("two plans are kept")
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == f"bitplan: {said}; two plans are kept\n"
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_interrupt_what_the_first_undoes() -> None:
    undone: list[bool] = []
    with pytest.raises(KeyboardInterrupt), answering(lambda code: None):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            undone.append(True)
    assert undone


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as `nohup` and shells do
    try:
        with answering(lambda code: None):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_files_that_were_written_are_named(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from bitplan.planner.files import write_json

    with pytest.raises(Interrupted), guarded("export x"):
        write_json({}, tmp_path / "a.json")
        raise interrupt_of(signal.SIGTERM)
    assert capsys.readouterr().err == f"bitplan: ended by SIGTERM; wrote {tmp_path / 'a.json'}\n"
    with pytest.raises(Interrupted), guarded("export x"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "bitplan: interrupted; nothing was written\n"
