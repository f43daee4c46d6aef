"""The C programs beside this file: compiled, and talked to line by line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.host import ending


@contextmanager
def compiled(name: str) -> Iterator[Path]:
    """The program of NAME.c until the block ends. RuntimeError: what the compiler complained of."""
    source = Path(__file__).with_name(f"{name}.c")
    with TemporaryDirectory(prefix="netmond-bench-") as directory:
        program = Path(directory) / name
        done = subprocess.run(
            ["cc", "-O2", "-pthread", "-o", str(program), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"cannot compile {source.name}: {done.stderr}")
        yield program


class Answering:
    """A process that answers each line with a line."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name

    def ask(self, line: str) -> str:
        """RuntimeError: it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._name} ended")
        return answer.strip()


@contextmanager
def answering(argv: Sequence[str], *, directory: Path | None = None) -> Iterator[Answering]:
    """Runs it until the block ends."""
    process = subprocess.Popen(argv, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with ending(process):
        yield Answering(process, " ".join(argv))
