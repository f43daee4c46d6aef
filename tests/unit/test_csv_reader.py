"""The user's CSV log as it is handed out: the right file, read only, and never another one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from netmond.config import OutputConfig
from netmond.errors import NetmondError, NoSuchLog, Unavailable
from netmond.outputs import reader
from netmond.outputs.files import open_directory, open_log_directory
from netmond.outputs.userlog import UserLog, log_name

UID = 1237


@pytest.fixture
def config(tmp_path: Path) -> OutputConfig:
    """Of an output whose user has a log with one line."""
    directory = open_log_directory(str(tmp_path / "log"))
    users = open_directory("users", directory)
    user = UserLog(users, UID, log_name("all", UID))
    user.append(b"a line\n")
    user.close()
    os.close(users)
    os.close(directory)
    return OutputConfig(name="csv", log_dir=tmp_path / "log", state_dir=tmp_path)


def content(config: OutputConfig, uid: int = UID) -> bytes:
    with open(reader.open_log(config, uid), "rb") as file:
        return file.read()


def test_it_is_the_file_that_is_written(config: OutputConfig) -> None:
    """From its begin, for reading, and closed in children."""
    fd = reader.open_log(config, UID)

    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    assert not os.get_inheritable(fd)
    assert os.read(fd, 99) == b"a line\n"
    os.close(fd)


def test_name(config: OutputConfig) -> None:
    """The part of the name that is configured counts."""
    with pytest.raises(NoSuchLog):
        reader.open_log(replace(config, options={"nic": "eth0"}), UID)


def test_there_is_none(config: OutputConfig) -> None:
    """No log, no directory, no output: each is said; nothing is made."""
    with pytest.raises(NoSuchLog, match="user 77 has no log yet"):
        reader.open_log(config, 77)
    with pytest.raises(NoSuchLog):
        reader.open_log(replace(config, log_dir=config.log_dir / "nowhere"), UID)
    with pytest.raises(Unavailable, match="switched off"):
        reader.open_log(replace(config, enabled=False), UID)
    assert not (config.log_dir / "users" / "77").exists()


def test_links_are_not_followed(config: OutputConfig, tmp_path: Path) -> None:
    """Neither of the user's directory nor of the file, nor a second name of somebody's file, nor a pipe."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    users = config.log_dir / "users"
    log = users / str(UID) / log_name("all", UID)
    log.unlink()
    plants: tuple[Callable[[], None], ...] = (
        lambda: log.symlink_to(secret),
        lambda: log.hardlink_to(secret),
        lambda: os.mkfifo(log),
        log.mkdir,
    )
    for plant in plants:
        plant()
        with pytest.raises(Unavailable):
            reader.open_log(config, UID)
        log.rmdir() if log.is_dir() else log.unlink()
    (users / str(UID)).rmdir()
    (users / "elsewhere").mkdir()
    (users / "elsewhere" / log.name).write_text("another's")
    (users / str(UID)).symlink_to("elsewhere")
    with pytest.raises(Unavailable):
        reader.open_log(config, UID)


def test_the_log_directory_may_be_a_link(config: OutputConfig, tmp_path: Path) -> None:
    """Administrators put it elsewhere so."""
    (tmp_path / "link").symlink_to(config.log_dir)

    assert content(replace(config, log_dir=tmp_path / "link")) == b"a line\n"


def test_no_descriptor_is_left(config: OutputConfig) -> None:
    """However it ends."""
    before = len(os.listdir("/proc/self/fd"))

    for uid in (UID, 77):
        for each in (config, replace(config, enabled=False), replace(config, log_dir=Path("/nowhere"))):
            try:
                os.close(reader.open_log(each, uid))
            except NetmondError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before
