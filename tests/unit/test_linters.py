"""The linters, as tests: what they say is as binding as any other test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(tool: str, *arguments: str) -> None:
    """Runs a tool on the whole repository; it must find nothing. From PATH, or from the tree's own .venv."""
    program = shutil.which(tool) or shutil.which(tool, path=str(ROOT / ".venv" / "bin"))
    if program is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    """No finding of the rules chosen in pyproject.toml."""
    run("ruff", "check", "--quiet", ".")


def test_format() -> None:
    """All code looks as ruff formats it."""
    run("ruff", "format", "--check", "--quiet", ".")


@pytest.mark.timeout(1200)  # it may have the whole library to read, on a machine that is busy
def test_types() -> None:
    """mypy, strict, on the program and its tests."""
    run("mypy")
