"""The command netmond: exit statuses and what it says, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netmond import __version__

ROOT = Path(__file__).parents[2]


def netmond(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs it in the source tree with nothing of this process's environment but PATH."""
    return subprocess.run(
        [sys.executable, "-m", "netmond", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
    )


def config(directory: Path, text: str) -> Path:
    path = directory / "netmond.toml"
    path.write_text(text)
    return path


def test_version() -> None:
    """One line with the name and the version."""
    done = netmond("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"netmond {__version__}\n", "")


def test_help() -> None:
    """Names every flag that the README and the unit file use."""
    done = netmond("--help")

    assert done.returncode == 0
    for flag in (
        "--config",
        "--state-dir",
        "--log-dir",
        "--interface",
        "--target",
        "--cgroup",
        "--interval",
        "--check",
    ):
        assert flag in done.stdout


@pytest.mark.parametrize("arguments", [["--no-such-flag"], ["--check", "extra"], ["--chec"]])
def test_wrong_usage(arguments: list[str]) -> None:
    """Status 2 and a line on stderr; flags are not guessed from their beginning."""
    done = netmond(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "netmond: error:" in done.stderr


def test_a_good_configuration(tmp_path: Path) -> None:
    """Status 0 and one line; nothing else is done."""
    path = config(
        tmp_path, '[targets]\naddresses = ["192.0.2.1", "2001:db8::/32"]\n[daemon]\ninterval = 2.0\n'
    )

    done = netmond("--check", "-c", path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "The configuration is good.\n", "")


def test_a_warning(tmp_path: Path) -> None:
    """An unknown key is a warning that names file and key, and still good."""
    done = netmond("--check", "-c", config(tmp_path, "[daemon]\nintervall = 2.0\n"))

    assert done.returncode == 0
    assert done.stdout == "The configuration is good.\n"
    assert done.stderr.startswith("netmond: warning: ")
    assert "netmond.toml" in done.stderr
    assert "intervall" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[targets]\naddresses = ["192.0.2.300"]\n', "192.0.2.300"),
        ('[daemon]\ninterval = "often"\n', "interval"),
        ('[interfaces]\nattach = "magic"\n', "magic"),
        ("[daemon\n", "netmond.toml"),
    ],
)
def test_a_bad_configuration(tmp_path: Path, text: str, named: str) -> None:
    """Status 1 and one line that names what is wrong; no traceback."""
    done = netmond("--check", "-c", config(tmp_path, text))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("netmond: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_configuration(tmp_path: Path) -> None:
    """A file that was named must be there."""
    done = netmond("--check", "-c", tmp_path / "missing.toml")

    assert done.returncode == 1
    assert "missing.toml" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_environment(tmp_path: Path) -> None:
    """A bad value there is named by its variable."""
    done = netmond("--check", "-c", config(tmp_path, ""), TARGET_IP="192.0.2.300")

    assert done.returncode == 1
    assert "TARGET_IP" in done.stderr


def test_a_bad_flag_value(tmp_path: Path) -> None:
    """So is one on the command line, by its flag."""
    done = netmond("--check", "-c", config(tmp_path, ""), "--target", "192.0.2.300")

    assert done.returncode == 1
    assert "--target" in done.stderr
    assert done.stderr.count("\n") == 1
