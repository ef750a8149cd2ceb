# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are saved the way editors save them: in place, in pieces, by rename, deleted for a moment."""

import os
import threading
import time
from pathlib import Path

import pytest

from vmm.base.watch import Watch, stamp

FAST = {"interval": 0.01, "settle": 0.05, "gone": 0.3}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.asm"
    path.write_text("hlt\n")
    return path


def later(function, seconds: float = 0.05) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.start()
    return timer


def test_a_save_in_place_is_told(file):
    watch = Watch([str(file)], **FAST)
    assert watch.wait(0.1) == ()
    later(lambda: file.write_text("nop\nhlt\n"))
    assert watch.wait(5) == (str(file),)
    assert watch.wait(0.1) == ()  # once


def test_a_save_while_nobody_waits_is_told_at_the_next_wait(file):
    watch = Watch([str(file)], **FAST)
    file.write_text("nop\n")
    assert watch.wait(5) == (str(file),)


def test_a_rename_that_keeps_time_and_size_is_a_save(file, tmp_path):
    watch = Watch([str(file)], **FAST)
    other = tmp_path / "a.asm.new"
    other.write_text("cli\n")
    found = file.stat()
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(file)
    assert watch.wait(5) == (str(file),)


def test_a_file_that_is_away_while_it_is_replaced_is_told_once_and_whole(file, tmp_path):
    watch = Watch([str(file)], **FAST)
    file.rename(tmp_path / "a.asm~")  # as vim does it with `backupcopy=no`
    later(lambda: file.write_text("sti\n"), 0.15)
    assert watch.wait(5) == (str(file),)
    assert file.exists()
    assert watch.wait(0.1) == ()


def test_a_file_written_in_pieces_is_told_when_it_is_whole(file):
    watch = Watch([str(file)], **FAST)

    def write() -> None:
        with file.open("w") as out:
            for _ in range(6):
                out.write("nop\n")
                out.flush()
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    assert watch.wait(5) == (str(file),)
    assert file.read_text() == "nop\n" * 6
    writer.join()


def test_a_removed_file_is_told_after_a_while_and_its_return_too(file):
    watch = Watch([str(file)], **FAST)
    file.unlink()
    begun = time.monotonic()
    assert watch.wait(5) == (str(file),)
    assert time.monotonic() - begun >= FAST["gone"]
    file.write_text("hlt\n")
    assert watch.wait(5) == (str(file),)


def test_a_file_that_is_written_to_without_end_does_not_hold_it_up(file):
    watch = Watch([str(file)], **FAST)
    stop = threading.Event()

    def write() -> None:
        with file.open("w") as out:
            while not stop.is_set():
                out.write("nop\n")
                out.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert watch.wait(5) == (str(file),)
    finally:
        stop.set()
        writer.join()


def test_a_name_that_is_not_there_yet_is_watched(tmp_path):
    late = tmp_path / "a.py"
    watch = Watch([str(late)], **FAST)
    later(lambda: late.write_text("pass\n"))
    assert watch.wait(5) == (str(late),)


def test_a_file_that_joins_counts_as_saved_only_if_that_was_since(file, tmp_path):
    old, new = tmp_path / "old.inc", tmp_path / "new.inc"
    old.write_text("; old\n")
    os.utime(old, (1, 1))
    watch = Watch([str(file)], **FAST)
    later = time.time_ns() + 10**9
    new.write_text("; new\n")
    os.utime(new, ns=(later, later))
    watch.follow([str(file), str(old), str(new)])
    assert watch.names == (str(file), str(old), str(new))
    assert watch.wait(5) == (str(new),)
    watch.follow([str(file)])
    old.write_text("; changed\n")
    assert watch.wait(0.1) == ()


def test_names_that_cannot_be_files_are_as_absent():
    assert stamp("a\0b") is None
    assert stamp("x" * 5000) is None


def test_waiting_costs_next_to_nothing(tmp_path):
    watch = Watch([str(tmp_path / f"{number}.asm") for number in range(10)])
    before = time.process_time()
    assert watch.wait(1) == ()
    assert time.process_time() - before < 0.05  # a busy loop takes the second
