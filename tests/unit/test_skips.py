"""Under CI a test that is skipped is a test that failed (tests/conftest.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_TESTS = {
    "skipped": "import pytest\n\ndef test_it():\n    pytest.skip('no such tool')\n",
    "marked": "import pytest\n\n@pytest.mark.skip(reason='no such tool')\ndef test_it():\n    pass\n",
    "fixture": (
        "import pytest\n\n@pytest.fixture\ndef tool():\n    pytest.skip('no such tool')\n\n"
        "def test_it(tool):\n    pass\n"
    ),
    "module": "import pytest\n\npytest.skip('no such tool', allow_module_level=True)\n",
}


def outcome(directory: Path, text: str, ci: str) -> subprocess.CompletedProcess[str]:
    """Runs one test file with the rules of tests/conftest.py."""
    (directory / "test_one.py").write_text(text)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
            directory,
        ],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("kind", _TESTS)
def test_a_skip_fails_under_ci(tmp_path: Path, kind: str) -> None:
    """However the test says so; the reason is shown."""
    done = outcome(tmp_path, _TESTS[kind], "true")

    assert done.returncode != 0
    assert "skipped, which CI does not allow" in done.stdout
    assert "no such tool" in done.stdout


@pytest.mark.parametrize("kind", ["skipped", "marked", "fixture"])
def test_a_skip_is_a_skip_elsewhere(tmp_path: Path, kind: str) -> None:
    """On a developer's machine tools may be missing."""
    assert outcome(tmp_path, _TESTS[kind], "").returncode == 0


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    """xfail keeps its meaning, under CI too."""
    text = "import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    assert False\n"

    assert outcome(tmp_path, text, "true").returncode == 0
