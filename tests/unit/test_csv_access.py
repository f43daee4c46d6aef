"""Who may read the CSV files, and that whoever may can do no more than that."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import posix1e
import pytest

from netmond.model import Snapshot
from netmond.outputs import files
from netmond.outputs.logs import CLEAN_UP
from tests.unit.csvflows import ALICE, BOB, Start, config, flow, lost, outputs, path_of, rows_of, snapshot

#: Belongs to nobody here, and does not fit into a signed number of 32 bits.
STRANGER = 3_999_999_999

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as several users")


@pytest.fixture
def log_dir() -> Iterator[Path]:
    """A log directory that everybody can reach, as /var/log/netmond; pytest's are for one user only."""
    directory = Path(tempfile.mkdtemp(prefix="netmond-test-"))
    directory.chmod(0o751)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def start(log_dir: Path) -> Iterator[Start]:
    """Starts outputs on `log_dir`, in which every write of 50 rows begins a new file."""
    with outputs(log_dir, rotate_size=4096) as begin:
        yield begin


def busy(tick: int, uid: int = ALICE) -> Snapshot:
    """Enough rows to fill a file."""
    return snapshot(tick, *(flow(tick * 100 + i, uid, received=23 + i, ended=True) for i in range(50)))


def entries(path: Path) -> str:
    """The access control list, as getfacl -n tells it."""
    return ",".join(str(posix1e.ACL(file=str(path))).split())


def of_file(uid: int) -> str:
    return f"user::rw-,user:{uid}:r--,group::r--,mask::r--,other::---"


def of_directory(uid: int) -> str:
    return f"user::rwx,user:{uid}:r-x,group::r-x,mask::r-x,other::---"


def act_as(uid: int, code: str, *, gid: int = 65534, groups: tuple[int, ...] = ()) -> str:
    """What a program prints that this user runs; a failed system call is its name, such as EACCES."""
    program = f"import os, errno\ntry: print({code})\nexcept OSError as e: print(errno.errorcode[e.errno])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        user=uid, group=gid, extra_groups=groups, cwd="/", text=True, capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


class TestEntries:
    @pytest.mark.parametrize("uid", [ALICE, STRANGER])
    def test_of_one_user(self, start: Start, log_dir: Path, uid: int) -> None:
        """The user reads all files and lists the directory, also if passwd does not know the number."""
        output = start()
        output.write(busy(1, uid))
        output.write(busy(2, uid))

        directory = path_of(log_dir, uid).parent
        assert sorted(path.name.rpartition(".")[2] for path in directory.iterdir()) == [
            "gz",
            "log",
            "totals",
        ]
        assert entries(directory) == of_directory(uid)
        assert {entries(path) for path in directory.iterdir()} == {of_file(uid)}

    def test_of_the_directory_of_all(self, start: Start, log_dir: Path) -> None:
        """Everybody passes, the group lists."""
        start()

        assert entries(log_dir / "users") == "user::rwx,group::r-x,other::--x"

    def test_a_log_directory_that_was_not_there(self, start: Start, log_dir: Path) -> None:
        """It is made like that of all users."""
        start(log_dir / "deep")

        assert entries(log_dir / "deep") == "user::rwx,group::r-x,other::--x"

    def test_of_root(self, start: Start, log_dir: Path) -> None:
        """Root reads everything anyway."""
        start().write(snapshot(1, flow(1, 0, received=23)))

        assert entries(path_of(log_dir, 0)) == "user::rw-,group::r--,other::---"

    def test_not_before_it_is_complete(self, log_dir: Path) -> None:
        """What is being made is nobody else's yet."""
        directory = os.open(log_dir, os.O_RDONLY)
        with files.Replacement("totals", directory, ALICE):
            assert entries(log_dir / "totals.tmp") == "user::rw-,group::r--,other::---"
        os.close(directory)

        assert entries(log_dir / "totals") == of_file(ALICE)

    def test_of_what_was_there_before(self, start: Start, log_dir: Path) -> None:
        """Older files, and those somebody changed, get the access they shall have and no other."""
        output = start()
        output.write(busy(1))
        output.write(busy(2))
        output.close()
        directory = path_of(log_dir).parent
        (directory / "traffic_user_eth0_1009.log").touch()
        (directory / "traffic_user_eth0_1009.log-20261121T033000Z").touch()
        wrong = posix1e.ACL(text=f"u::rwx,u:{BOB}:rwx,g::rwx,m::rwx,o::r--")
        for path in (directory.parent, directory, *directory.iterdir()):
            wrong.applyto(str(path))
        start()

        assert entries(directory.parent) == "user::rwx,group::r-x,other::--x"
        assert entries(directory) == of_directory(ALICE)
        assert {path.name: entries(path) for path in directory.iterdir()} == {
            path.name: of_file(ALICE) for path in directory.iterdir()
        }

    def test_inherited_entries(self, start: Start, log_dir: Path) -> None:
        """A default access control list of the log directory opens nothing to anybody."""
        default = posix1e.ACL(text=f"u::rwx,u:{BOB}:rwx,g::rwx,m::rwx,o::rwx")
        default.applyto(str(log_dir), posix1e.ACL_TYPE_DEFAULT)
        output = start()
        output.write(busy(1))
        output.write(busy(2))

        directory = path_of(log_dir).parent
        assert entries(directory) == of_directory(ALICE)
        assert {entries(path) for path in directory.iterdir()} == {of_file(ALICE)}


@needs_root
class TestUsers:
    """The same, asked by processes of the users themselves. The daemon's group here is root's."""

    def read(self, path: Path) -> str:
        return f"len(open({str(path)!r}, 'rb').read())"

    def test_own_files_only(self, start: Start, log_dir: Path) -> None:
        """Everything of one's own, nothing of others, and of nobody's directories a list."""
        output = start()
        for tick in (1, 2):
            output.write(busy(tick))
            output.write(busy(tick, BOB))

        for path in (*path_of(log_dir).parent.iterdir(), *path_of(log_dir, BOB).parent.iterdir()):
            mine = str(path.stat().st_size)
            assert [act_as(uid, self.read(path)) for uid in (ALICE, BOB)] == (
                [mine, "EACCES"] if path.parent.name == str(ALICE) else ["EACCES", mine]
            ), path
            assert act_as(STRANGER, self.read(path)) == "EACCES"
        listing = {uid: f"len(os.listdir({str(path_of(log_dir, uid).parent)!r}))" for uid in (ALICE, BOB)}
        assert [act_as(ALICE, listing[uid]) for uid in (ALICE, BOB)] == ["3", "EACCES"]
        for directory in (log_dir, log_dir / "users"):
            assert act_as(ALICE, f"os.listdir({str(directory)!r})") == "EACCES"

    def test_the_group_reads_all(self, start: Start, log_dir: Path) -> None:
        """Members of the daemon's group list directories and read files, without writing any."""
        start().write(busy(1))
        log = path_of(log_dir)

        for directory in (log_dir, log_dir / "users", log.parent):
            assert act_as(BOB, f"len(os.listdir({str(directory)!r})) > 0", groups=(os.getegid(),)) == "True"
        assert act_as(BOB, self.read(log), groups=(os.getegid(),)) == str(log.stat().st_size)
        assert act_as(BOB, f"open({str(log)!r}, 'ab')", groups=(os.getegid(),)) == "EACCES"

    def test_reading_is_all(self, start: Start, log_dir: Path) -> None:
        """A user changes neither files nor directory, and can neither lease nor link what is readable."""
        start().write(busy(1))
        log = path_of(log_dir)
        path, directory = str(log), str(log.parent)
        lease = "__import__('fcntl').fcntl(os.open({!r}, os.O_RDONLY), 1024, 0)"

        attempts = {
            f"open({path!r}, 'r+b')": "EACCES",
            f"os.truncate({path!r}, 0)": "EACCES",
            f"os.unlink({path!r})": "EACCES",
            f"os.rename({path!r}, '/tmp/netmond-test-stolen')": "EACCES",
            f"os.chmod({path!r}, 0o666)": "EPERM",
            f"os.utime({path!r}, (0, 0))": "EPERM",
            f"os.removexattr({path!r}, 'system.posix_acl_access')": "EPERM",
            f"os.mkdir({directory + '/new'!r})": "EACCES",
            f"os.symlink('/etc/passwd', {path + '-20300101T000000Z'!r})": "EACCES",
            f"os.chmod({directory!r}, 0o777)": "EPERM",
            f"os.link({path!r}, {str(log_dir.parent / 'netmond-test-link')!r})": "EPERM",
            lease.format(path): "EACCES",
        }
        assert {attempt: act_as(ALICE, attempt) for attempt in attempts} == attempts


class TestReaders:
    def test_locks_stop_nothing(self, start: Start, log_dir: Path) -> None:
        """A reader's lock on the log delays neither rows nor rotation."""
        output = start()
        output.write(busy(1))
        with path_of(log_dir).open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            fcntl.lockf(held, fcntl.LOCK_SH)
            output.write(snapshot(1, flow(1, received=23)))
            output.write(busy(2))

        assert lost(output) == 0
        assert len(list(path_of(log_dir).parent.glob("*.gz"))) == 1

    def test_deleted_files_take_no_space(self, start: Start, log_dir: Path) -> None:
        """Keeping files open does not keep them on the disk, compressed or deleted ones."""
        output = start(keep_per_user=4096)
        output.write(busy(1))
        with path_of(log_dir).open("rb") as plain:
            output.write(busy(2))
            with next(path_of(log_dir).parent.glob("*.gz")).open("rb") as packed:
                for tick in range(3, 14):
                    output.write(busy(tick))

                for held in (plain, packed):
                    info = os.fstat(held.fileno())
                    assert (info.st_nlink, info.st_size) == (0, 0)


class TestPlanted:
    """Names that only root or the daemon could make, as a backup restored wrongly would have them."""

    @pytest.mark.parametrize("name", ["totals", "totals.tmp", "rotated.gz.tmp"])
    def test_files_beside_the_log(self, start: Start, log_dir: Path, name: str) -> None:
        """Links in the place of other files of ours lead nowhere and are replaced."""
        (log_dir / "victim").write_text("precious\n")
        log = path_of(log_dir)
        log.parent.mkdir(parents=True)
        name = name.replace("rotated", f"{log.name}-20261121T033001Z")
        (log.parent / name).symlink_to(log_dir / "victim")
        output = start()
        output.write(busy(1))
        output.write(busy(2))

        assert lost(output) == 0
        assert (log_dir / "victim").read_text() == "precious\n"
        assert not [path for path in log.parent.iterdir() if path.is_symlink()]

    @pytest.mark.parametrize("plant", ["symlink", "hard link", "fifo", "directory"])
    def test_rotated_files(
        self, start: Start, log_dir: Path, plant: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What pretends to be a rotated file is not touched; it is told once, and rows go on."""
        victim = log_dir / "victim"
        victim.write_text("precious\n")
        victim.chmod(0o600)
        output = start()
        output.write(snapshot(1, flow(1, received=23)))
        name = f"{path_of(log_dir).name}-20261121T010000Z.gz"
        planted = path_of(log_dir).with_name(name)
        if plant == "symlink":
            planted.symlink_to(victim)
        elif plant == "hard link":
            planted.hardlink_to(victim)
        elif plant == "fifo":
            os.mkfifo(planted)
        else:
            planted.mkdir()
        for hour in (1, 2, 3):
            output.write(snapshot(hour * (CLEAN_UP + 1), flow(1, received=23 + hour)))

        assert [record.message for record in caplog.records] == [
            f"CSV: {log_dir}/users/1009/{name}: not a plain file of netmond's own, remove it"
        ]
        assert entries(victim) == "user::rw-,group::---,other::---"
        assert victim.read_text() == "precious\n"
        assert rows_of(log_dir)[-1]["total_in"] == "26"

    def test_a_cap_does_not_empty_what_is_not_ours(self, start: Start, log_dir: Path) -> None:
        """Deleting the oldest files takes away a planted link, not what it stands for."""
        victim = log_dir / "victim"
        victim.write_text("precious\n")
        output = start(keep_per_user=4096)
        output.write(busy(1))
        planted = path_of(log_dir).with_name(f"{path_of(log_dir).name}-20200101T000000Z.gz")
        planted.hardlink_to(victim)
        for tick in range(2, 14):
            output.write(busy(tick))

        assert not planted.exists()
        assert victim.read_text() == "precious\n"

    def test_the_directory_of_all(self, start: Start, log_dir: Path) -> None:
        """A link instead of `users` is not followed: the output does not start."""
        (log_dir / "victim").mkdir(0o700)
        (log_dir / "users").symlink_to(log_dir / "victim")
        with pytest.raises(NotADirectoryError):
            start()

        assert list((log_dir / "victim").iterdir()) == []
        assert entries(log_dir / "victim") == "user::rwx,group::---,other::---"

    @needs_root
    def test_foreign_directories(self, start: Start, log_dir: Path) -> None:
        """A directory of a user's own, in which traps could be set, is not used and not changed."""
        output = start()
        own = path_of(log_dir).parent
        own.mkdir(0o755)
        os.chown(own, ALICE, ALICE)
        output.write(snapshot(1, flow(1, received=23)))

        assert lost(output) == 1
        assert entries(own) == "user::rwx,group::r-x,other::r-x"


@needs_root
class TestWithoutAccessControlLists:
    @pytest.fixture
    def ramfs(self, log_dir: Path) -> Iterator[Path]:
        """A file system that has none."""
        disk = log_dir / "ramfs"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "ramfs", "netmond-test", disk], check=False).returncode:
            pytest.skip("cannot mount a ramfs here")
        disk.chmod(0o751)
        yield disk
        subprocess.run(["umount", "--lazy", disk], check=True)

    def test_the_group_only(
        self, start: Start, ramfs: Path, log_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Rows are written; that users cannot read them is said once, with what to do about it."""
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            posix1e.ACL(file=str(ramfs))
        output = start(ramfs)
        assert output.limitation() == ""
        for tick in (1, 2):
            output.write(busy(tick))
            output.write(busy(tick, BOB))

        text = (
            f"users cannot read their own files: the file system of {ramfs} has no access control lists;"
            " mount it with them, or set [daemon] log_dir to a directory on another one"
        )
        assert output.limitation() == text
        assert [record.message for record in caplog.records] == [f"CSV: {text}"]
        assert lost(output) == 0
        directory = path_of(ramfs).parent
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o640}
        assert [path.stat().st_mode & 0o777 for path in (directory, directory.parent)] == [0o750, 0o751]

        output.close()
        output.init(config(log_dir))
        output.write(snapshot(9, flow(1, received=23)))
        assert output.limitation() == ""

    def test_root_misses_nothing(self, start: Start, ramfs: Path) -> None:
        """As long as only root uses the network nothing is missing."""
        output = start(ramfs)
        output.write(snapshot(1, flow(1, 0, received=23)))

        assert output.limitation() == ""
