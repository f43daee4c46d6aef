"""A local apt repository: the packages under test and every Debian package they need or recommend.

With it `apt-get install ./netmond_*.deb` works on a machine without network as on one with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.service.cache import cached
from tests.service.tree import SUITE

_SOURCES = """\
deb [signed-by={keyring}] http://deb.debian.org/debian {suite} main
deb [signed-by={keyring}] http://deb.debian.org/debian {suite}-updates main
deb [signed-by={keyring}] http://deb.debian.org/debian-security {suite}-security main
"""
#: Programs that tests use once netmond is installed. Before, they would bring libraries that it needs.
TOOLS = ("bpftool", "iproute2", "procps", "tcpdump")

_RELATIONS = ("Package", "Pre-Depends", "Depends", "Recommends")
_PACKAGES = "Packages"


def make_repository(directory: Path, debs: Sequence[Path], tree: Path) -> None:
    """Makes `directory` a repository of the packages and of what installing them into the tree takes.

    Files of Debian are symbolic links to /opt/debian, which must be `debian_packages()` in the machine.
    """
    debian = debian_packages(debs, tree)
    directory.mkdir()
    for deb in debs:
        (directory / deb.name).write_bytes(deb.read_bytes())
    for deb in debian.glob("*.deb"):
        (directory / deb.name).symlink_to(f"/opt/debian/{deb.name}")
    index = _index(directory, debs) + (debian / _PACKAGES).read_text()
    (directory / _PACKAGES).write_text(index)


def debian_packages(debs: Sequence[Path], tree: Path) -> Path:
    """Everything that the packages and the tests need or recommend and the tree has not, downloaded once."""
    relations = [_output("dpkg-deb", "--field", str(deb), *_RELATIONS) for deb in debs]

    def download(directory: Path) -> None:
        print(f"downloading what {', '.join(deb.name for deb in debs)} need", file=sys.stderr, flush=True)
        _download(directory, debs, tree)

    return cached("debian", "\n".join((SUITE, str(tree), *TOOLS, *relations)), download)


def _download(directory: Path, debs: Sequence[Path], tree: Path) -> None:
    """With an apt that knows the tree's packages as the installed ones, and nothing of the host's."""
    keyring = tree / "usr/share/keyrings/debian-archive-keyring.gpg"
    for name in ("lists/partial", "archives/partial", "preferences.d", "apt.conf.d"):
        (directory / "apt" / name).mkdir(parents=True)
    sources = directory / "apt/sources.list"
    sources.write_text(_SOURCES.format(keyring=keyring, suite=SUITE))
    options = {
        "Dir::State": directory / "apt",
        "Dir::State::lists": directory / "apt/lists",
        "Dir::State::status": tree / "var/lib/dpkg/status",
        "Dir::Cache": directory / "apt",
        "Dir::Cache::archives": directory / "apt/archives",
        "Dir::Etc": directory / "apt",
        "Dir::Etc::sourcelist": sources,
        "APT::Architecture": _output("dpkg", "--print-architecture").strip(),
        "APT::Install-Recommends": "true",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"--option={name}={value}" for name, value in options.items())]
    _output(*apt, "update")
    _output(*apt, "--yes", "--download-only", "install", *(str(deb.resolve()) for deb in debs), *TOOLS)
    for deb in (directory / "apt/archives").glob("*.deb"):
        deb.rename(directory / deb.name)
    subprocess.run(["rm", "-r", str(directory / "apt")], check=True)
    (directory / _PACKAGES).write_text(_index(directory, sorted(directory.glob("*.deb"))))


#: A longer struct flow, as a later release may have it: a file below /usr, what stands there, and what then.
_LONGER_RECORD = (
    ("share/netmond/bpf/types.h", "u64 unused3[2];", "u64 unused3[10];"),
    (
        "lib/python3/dist-packages/netmond/kernel/wire.py",
        '("unused3", "u8", (2,))',
        '("unused3", "u8", (10,))',
    ),
)


def make_newer(directory: Path, debs: Sequence[Path]) -> None:
    """The same packages as a later release would be: a higher version, also in what netmond says, and
    another layout of the records that its programs write."""
    directory.mkdir()
    for deb in debs:
        files = directory / deb.stem
        _output("dpkg-deb", "--raw-extract", str(deb), str(files))
        version = _output("dpkg-deb", "--field", str(deb), "Version").strip()
        newer = f"{version}+newer1"
        control = files / "DEBIAN/control"
        control.write_text(control.read_text().replace(version, newer))
        for module in files.glob("usr/lib/python3/dist-packages/*/__init__.py"):
            module.write_text(module.read_text().replace(f'"{version}"', f'"{newer}"'))
        for name, now, then in _LONGER_RECORD:
            if (source := files / "usr" / name).exists():
                assert now in source.read_text()
                source.write_text(source.read_text().replace(now, then))
        (files / "DEBIAN/md5sums").unlink()  # of what has been changed; dpkg makes them itself
        _output("dpkg-deb", "--root-owner-group", "--build", str(files), str(directory))
        subprocess.run(["rm", "-r", str(files)], check=True)


def _index(directory: Path, debs: Sequence[Path]) -> str:
    """The entries of Packages (deb822(5)) for some files of a repository."""
    return "".join(
        f"{_output('dpkg-deb', '--field', str(deb)).strip()}\n"
        f"Filename: ./{deb.name}\n"
        f"Size: {deb.stat().st_size}\n"
        f"SHA256: {_output('sha256sum', str(directory / deb.name)).split()[0]}\n\n"
        for deb in debs
    )


def _output(*argv: str) -> str:
    """What a command prints; SystemExit with its complaint if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
