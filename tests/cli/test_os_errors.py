"""Errors of the operating system, each as one line that says what can be known."""

import errno
import os

import pytest

from stochastok_cli.cli.os_errors import describe_os_error


def test_the_file_is_named_where_it_is_known():
    with pytest.raises(OSError) as error:
        os.scandir("absent/file")
    assert describe_os_error(error.value) == "absent/file: No such file or directory"
    assert describe_os_error(OSError(errno.ENOTCONN, "not connected")) == "not connected"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_without_the_name_of_a_file():
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError) as error:
        file.write(b"text")
    assert describe_os_error(error.value) == (
        "a file can't be written: No space left on device (see the disks of outputs, caches and TMPDIR; --debug shows "
        "which file); make room and run it again"
    )


def test_the_disk_that_is_full_is_named(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc")  # whose file system has no room
    assert "(the disk of temporary files is full; --debug" in describe_os_error(OSError(errno.ENOSPC, "No space left"))
    monkeypatch.setenv("TMPDIR", "/absent")
    assert "(see the disks of" in describe_os_error(OSError(errno.EDQUOT, "Quota exceeded"))
