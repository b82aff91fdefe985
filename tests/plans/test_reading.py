"""Inputs are regular files of a limited size; a text may come from a pipe whose end arrives."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitplan.plans import reading
from bitplan.plans.reading import parse_json, read_bytes, read_text


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def writing(pipe: Path) -> Iterator[int]:
    """A writer's end of the pipe, open."""
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that opening the writer's end does not wait
    writer = os.open(pipe, os.O_WRONLY)
    yield writer
    os.close(reader)


def _write(writer: int, data: bytes) -> None:
    while data:
        data = data[os.write(writer, data) :]
    os.close(writer)


def test_a_text_from_a_pipe_is_read_to_its_end(pipe: Path, writing: int) -> None:
    data = "é".encode() * 100_000  # more than a pipe holds
    thread = threading.Thread(target=_write, args=(writing, data))
    thread.start()
    assert read_text(pipe) == "é" * 100_000
    thread.join()


def test_a_pipe_without_a_writer_is_refused_at_once(pipe: Path) -> None:
    with pytest.raises(OSError, match="nothing is written to"):
        read_text(pipe)


def test_a_pipe_that_does_not_end_is_refused(pipe: Path, writing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WAIT", 0.05)
    os.write(writing, b"the start")
    with pytest.raises(OSError, match=r"has not ended after 0.05 s"):
        read_text(pipe)
    os.close(writing)


def test_a_pipe_of_too_much_is_refused(pipe: Path, writing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST", 9)
    os.write(writing, b"x" * 10)
    os.close(writing)
    with pytest.raises(OSError, match="a pipe of more than 9 bytes"):
        read_text(pipe)


@pytest.mark.parametrize("read", [read_bytes, read_text])
def test_devices_folders_and_large_files_are_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(OSError, match="only regular files are read"):
            read(Path(device))
    with pytest.raises(OSError, match="Is a directory"):
        read(tmp_path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(reading.MOST + 1)
    with pytest.raises(OSError, match="it has 67,108,865 bytes, and at most 67,108,864 are read"):
        read(tmp_path / "large")
    with pytest.raises(OSError, match="null"):
        read(tmp_path / "x\0y")


def test_bytes_do_not_come_from_a_pipe(pipe: Path, writing: int) -> None:
    os.close(writing)
    with pytest.raises(OSError, match="only regular files are read"):
        read_bytes(pipe)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "[" * 100_000, "", "{}x", "\ufeff{}"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
