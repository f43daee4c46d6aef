"""The CSV files as users find them: own ones can be read, those of others cannot, and no trick helps."""

from __future__ import annotations

import csv
import gzip
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import PATIENCE, UNIT, ctl, described, journal, moment, restart, run, systemctl
from tests.service.talk import FAR, Figures, Talker, echoed, figures

LOGS = Path("/var/log/netmond")
MEMBER = "grace"  #: of group netmond

_DROP_IN = Path("/etc/netmond/netmond.d/logs.toml")
_OFTEN = "[output.csv]\ninterval = 1\nrotate_size = 4096\n"

pytestmark = pytest.mark.usefixtures("member", "often")


@pytest.fixture(scope="module")
def member(installed: None) -> Iterator[None]:
    """A member of the group; logging in again is what setpriv --init-groups stands for."""
    run("useradd", "--groups=netmond", MEMBER)
    yield
    run("userdel", MEMBER)


@pytest.fixture(scope="module")
def often(installed: None) -> Iterator[None]:
    """Rows every second, and a new file every 4 KiB."""
    _DROP_IN.write_text(_OFTEN)
    ctl("reload")
    yield
    _DROP_IN.unlink()
    ctl("reload")


def log_of(talker: Talker) -> Path:
    return LOGS / "users" / str(talker.uid) / f"traffic_user_all_{talker.uid}.log"


def cat(path: Path, user: str) -> bytes | None:
    """A file as a user reads it, empty if it is not there (any more); None if reading is not permitted."""
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", "cat", str(path)]
    done = subprocess.run(words, capture_output=True, timeout=PATIENCE)
    if b"Permission denied" in done.stderr:
        assert not done.stdout
        return None
    assert done.returncode == 0 or b"No such file" in done.stderr, done.stderr
    return done.stdout


def may_list(path: Path, user: str) -> bool:
    done = run("ls", str(path), user=user, check=False)
    assert done.code == 0 or (done.out == "" and "Permission denied" in done.err)
    return done.code == 0


def written(talker: Talker, user: str) -> Figures:
    """The figures of the talker's unit, according to all its files that `user` finds and may read.

    A file that was made this moment may not be open to the user yet, nor its last line be whole.
    """
    directory = log_of(talker).parent
    sums = {f"{direction}_{what}": 0 for direction in ("in", "out") for what in ("packets", "bytes")}
    for name in run("ls", str(directory), user=user, check=False).out.split():
        if "traffic_user_" not in name or name.endswith(".tmp"):
            continue
        text = cat(directory / name, user) or b""
        lines, _, _ = (gzip.decompress(text) if name.endswith(".gz") else text).rpartition(b"\n")
        for row in csv.DictReader(io.StringIO(lines.decode())):
            if row["unit"] == talker.unit:
                for what in ("packets", "bytes"):
                    sums[f"{row['direction']}_{what}"] += int(row[what])
    return figures(sums)


def await_rows(talker: Talker, user: str, count: int, size: int = 101) -> None:
    """Waits until `user` finds exactly so many datagrams of the talker, and their echoes, in the files."""
    eventually(
        lambda: written(talker, user) == echoed(count, size), f"{user} reads {count} packets each way"
    )


def test_own_file(talkers: dict[str, Talker]) -> None:
    """Each user finds the own traffic, to the packet and byte, in the own files."""
    talkers["erin"].exchange(23, 101)
    talkers["frank"].exchange(29, 307)

    await_rows(talkers["erin"], "erin", 23)
    await_rows(talkers["frank"], "frank", 29, size=307)


def test_nobody_elses(talkers: dict[str, Talker]) -> None:
    """Other users' files cannot be read, and no directory tells who and what there is."""
    for talker in talkers.values():
        talker.exchange(3, 101)
    eventually(lambda: all(log_of(talker).exists() for talker in talkers.values()), "both have a file")

    directories = [LOGS, LOGS / "users", *(log_of(talker).parent for talker in talkers.values())]
    for user, other in (("erin", "frank"), ("frank", "erin")):
        for path in log_of(talkers[other]).parent.iterdir():
            assert cat(path, user) is None, path
        assert [path for path in directories if may_list(path, user)] == [log_of(talkers[user]).parent]
    for path in (*directories, log_of(talkers["erin"])):
        assert run("ls", str(path) + "/.", user="nobody", check=False).out == ""
    assert run("stat", "--format=%A %U %G", *map(str, directories)).out.splitlines() == [
        "drwxr-x--x netmond netmond", "drwxr-x--x netmond netmond",
        "drwxr-x--- netmond netmond", "drwxr-x--- netmond netmond",
    ]  # fmt: skip


def test_the_group_reads_all(talkers: dict[str, Talker]) -> None:
    """A member of netmond's group lists and reads everything, and writes nothing."""
    talkers["erin"].exchange(31, 101)

    await_rows(talkers["erin"], MEMBER, 31)
    for directory in (LOGS, LOGS / "users", log_of(talkers["erin"]).parent):
        assert may_list(directory, MEMBER)
        assert run("touch", str(directory / "mine"), user=MEMBER, check=False).code != 0
    assert run("truncate", "--size=0", str(log_of(talkers["erin"])), user=MEMBER, check=False).code != 0


def test_reading_is_all(talkers: dict[str, Talker]) -> None:
    """A user can neither change nor remove nor link the own log."""
    talkers["erin"].exchange(3, 101)
    await_rows(talkers["erin"], "erin", 3)  # then no other log is begun meanwhile
    log = str(log_of(talkers["erin"]))

    for command in (
        ["truncate", "--size=0", log], ["rm", "--force", log], ["mv", log, "/tmp/mine"],
        ["ln", log, "/var/tmp/mine"], ["chmod", "666", log], ["touch", "--date=2020-01-01", log],
        ["mkdir", f"{log}.d"], ["ln", "--symbolic", "/etc/passwd", f"{log}-20300101T000000Z.gz"],
        ["rmdir", os.path.dirname(log)], ["chmod", "777", os.path.dirname(log)],
    ):  # fmt: skip
        assert run(*command, user="erin", check=False).code != 0, command


def test_a_lock_stops_nothing(talkers: dict[str, Talker]) -> None:
    """A user who holds a lock on the own file delays neither rows nor rotation."""
    erin = talkers["erin"]
    erin.exchange(3, 101)
    await_rows(erin, "erin", 3)
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    words = ["setpriv", "--reuid=erin", "--regid=erin", "--init-groups", "--"]
    before = rotated(erin)
    with subprocess.Popen(
        [*words, "python3", "-c", code, str(log_of(erin))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        fill(erin)
        eventually(lambda: rotated(erin) > before, "the locked file was put aside")
        holder.terminate()


def fill(talker: Talker) -> None:
    """Two rows for each of 60 flows are more than 4 KiB."""
    talker.do("many", prefix="m", count=60, peer=[FAR, 7], exchanges=1, size=101)
    talker.exchange(1, 101)


def rotated(talker: Talker) -> int:
    return len(list(log_of(talker).parent.glob("*.gz")))


def unfinished(talker: Talker) -> list[Path]:
    """Files that were put aside and are not compressed yet, and what they become."""
    return [path for path in log_of(talker).parent.glob("*.log-*") if path.suffix != ".gz"]


def test_rotation_keeps_access(talkers: dict[str, Talker]) -> None:
    """What was put aside and compressed is still the user's, and nobody else's; no row is missing."""
    erin = talkers["erin"]
    before = rotated(erin)
    for times in (1, 2, 3):
        fill(erin)
        erin.do("close_all")
        erin.do("udp", name="a", peer=[FAR, 7])
        await_rows(erin, "erin", times * 61)

    eventually(lambda: rotated(erin) >= before + 2 and not unfinished(erin), "files were put aside")
    for path in log_of(erin).parent.iterdir():
        assert cat(path, "erin") is not None
        assert cat(path, "frank") is None


@pytest.mark.parametrize("plant", ["symlink", "hard link", "fifo", "directory", "linked directory"])
def test_planted_paths(talkers: dict[str, Talker], plant: str) -> None:
    """What somebody puts in the place of a log is not touched and is reported; other users' rows go on, and
    this user's, once it is gone."""
    erin, log = talkers["erin"], log_of(talkers["erin"])
    erin.exchange(1, 101)
    await_rows(erin, "erin", 1)
    since = moment()
    victim = Path("/var/log/victim")
    victim.mkdir()
    (victim / log.name).write_text("precious\n")
    aside = log.parent.with_name("aside")
    log.parent.rename(aside)
    if plant == "linked directory":
        log.parent.symlink_to(victim)
    else:
        log.parent.mkdir()
        os.chown(log.parent, aside.stat().st_uid, aside.stat().st_gid)
        if plant == "symlink":
            log.symlink_to(victim / log.name)
        elif plant == "hard link":
            log.hardlink_to(victim / log.name)
        elif plant == "fifo":
            os.mkfifo(log)
        else:
            log.mkdir()
    try:
        erin.exchange(5, 101)
        talkers["frank"].exchange(7, 101)
        reported = eventually(
            lambda: [
                entry["MESSAGE"]
                for entry in journal(f"--unit={UNIT}", f"--since={since}")
                if f"CSV files of user {erin.uid} cannot be used" in str(entry["MESSAGE"])
            ],
            "it is reported",
        )
        await_rows(talkers["frank"], "frank", 7)
        assert len(reported) == 1
        assert [path.name for path in victim.iterdir()] == [log.name]
        info = (victim / log.name).stat()
        assert ((victim / log.name).read_text(), info.st_uid, info.st_mode & 0o777) == (
            "precious\n",
            0,
            0o644,
        )
    finally:
        run("rm", "--recursive", "--force", str(log.parent), str(victim))
        aside.rename(log.parent)

    erin.exchange(3, 101)
    await_rows(erin, "erin", 1 + 3)
    lines = [line for line in log.read_text().splitlines() if line[:3] in ("in,", "out")]
    totals = [int(line.split(",")[5]) for line in lines]
    assert totals == sorted(totals)


def test_without_access_control_lists(talkers: dict[str, Talker]) -> None:
    """On a file system that has none only the group reads; status says so, and rows are written."""
    systemctl("stop", UNIT)
    run("mount", "-t", "ramfs", "netmond-test", str(LOGS))
    try:
        restart()
        talkers["erin"].exchange(23, 101)
        await_rows(talkers["erin"], MEMBER, 23)

        assert cat(log_of(talkers["erin"]), "erin") is None
        eventually(
            lambda: "access control lists" in features()["output.csv"][1], "status knows what is missing"
        )
        assert features()["output.csv"][0] == "degraded"
        assert "access control lists" in ctl("status").out
    finally:
        systemctl("stop", UNIT)
        run("umount", str(LOGS))
        restart()
    eventually(lambda: features()["output.csv"][0] == "on", "it is on again")


def features() -> dict[str, tuple[str, str]]:
    return {each["name"]: (each["state"], each["reason"]) for each in described()["features"]}
