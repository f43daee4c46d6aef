"""Under CI a test that is skipped, or expected to fail, is a test that failed (tests/conftest.py)."""

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

_EXPECTED = {
    "marked": ("import pytest\n\n@pytest.mark.xfail(reason='not yet')\ndef test_it():\n    assert False\n"),
    "called": "import pytest\n\ndef test_it():\n    pytest.xfail('not yet')\n",
    "not run": (
        "import pytest\n\n@pytest.mark.xfail(run=False, reason='not yet')\ndef test_it():\n    pass\n"
    ),
    "passed": "import pytest\n\n@pytest.mark.xfail(reason='not yet')\ndef test_it():\n    pass\n",
}


def outcome(directory: Path, text: str, ci: str, *options: str) -> subprocess.CompletedProcess[str]:
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
            *options,
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


@pytest.mark.parametrize("kind", _EXPECTED)
def test_an_expected_failure_fails_under_ci(tmp_path: Path, kind: str) -> None:
    """However it is expected, and whether or not it came; the reason is shown."""
    done = outcome(tmp_path, _EXPECTED[kind], "true")

    assert done.returncode != 0
    assert "expected to fail, which CI does not allow" in done.stdout
    assert "not yet" in done.stdout


@pytest.mark.parametrize("kind", _EXPECTED)
def test_an_expected_failure_keeps_its_meaning_elsewhere(tmp_path: Path, kind: str) -> None:
    """While somebody works on it."""
    assert outcome(tmp_path, _EXPECTED[kind], "").returncode == 0


def test_what_is_not_chosen_is_no_skip(tmp_path: Path) -> None:
    """A marker, or a part of the name, may leave tests out."""
    text = "def test_it():\n    pass\n\ndef test_other():\n    assert False\n"

    done = outcome(tmp_path, text, "true", "-k", "test_it")

    assert done.returncode == 0
    assert "1 passed, 1 deselected" in done.stdout
