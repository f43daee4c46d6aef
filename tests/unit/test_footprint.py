"""What the daemon's process must not load, tried in processes of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    """Runs code after stay_small(), as the daemon does, and returns what it printed."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"from netmond.footprint import *\nstay_small()\nimport sys\n{code}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_openssl() -> None:
    """asyncio and hashlib work without OpenSSL, which is neither imported nor mapped."""
    code = (
        "import asyncio, hashlib\n"
        "print(asyncio.run(asyncio.sleep(0, 'slept')), hashlib.sha256(b'').hexdigest()[:8])\n"
        "print('libssl' in open('/proc/self/maps').read(), bool(sys.modules.get('ssl')))\n"
    )

    assert run(code).split() == ["slept", "e3b0c442", "False", "False"]


def test_the_whole_daemon_needs_none() -> None:
    """All that the daemon imports comes without OpenSSL, LLVM and GLib."""
    code = (
        "import netmond.daemon, netmond.outputs.exported\n"
        "maps = open('/proc/self/maps').read()\n"
        "print([name for name in ('libssl', 'libcrypto', 'libLLVM', 'libbcc', 'libglib') if name in maps])\n"
        "print([name for name in ('bcc', 'gi', 'rich', 'pyroute2', 'psutil') if sys.modules.get(name)])\n"
    )

    assert run(code).splitlines() == ["[]", "[]"]


def test_annotations() -> None:
    """numpy.typing is loaded for an output that looks into types, not for what only annotates."""
    code = (
        "import netmond.daemon\n"
        "print('numpy._typing' in sys.modules)\n"
        "from numpy.typing import ArrayLike, NDArray\n"
        "print('numpy._typing' in sys.modules, NDArray[int].__origin__.__name__, bool(ArrayLike))\n"
    )

    assert run(code).splitlines() == ["False", "True ndarray True"]


def test_nothing_of_the_exporter() -> None:
    """Who exports nothing has no code for it in memory."""
    code = (
        "import netmond.daemon\n"
        "print([name for name in sys.modules if name.startswith('netmond.') and 'export' in name])\n"
    )

    assert run(code) == "[]"


def test_without_what_nobody_uses() -> None:
    """Modules that others import by name only are not loaded with them, nor with the daemon."""
    code = (
        "import numpy, netmond.daemon\n"
        "print([name for name in ('numpy.random.mtrand', 'numpy.ma.core', 'numpy.fft._pocketfft',"
        " 'numpy.polynomial.polynomial', '_bz2', '_lzma', '_pickle') if name in sys.modules])\n"
        "maps = open('/proc/self/maps').read()\n"
        "print([name for name in ('liblapack', '_multiarray_tests', 'libbz2', 'liblzma') if name in maps])\n"
    )

    assert run(code).splitlines() == ["[]", "[]"]


def test_they_work_when_used() -> None:
    """At first use each of them is loaded and is itself."""
    code = (
        "import numpy, shutil, bz2, lzma, pickle\n"
        "print(numpy.random.default_rng(23).integers(0, 7, 3).size)\n"
        "print(numpy.ma.masked_equal([1, 2, 1], 1).sum())\n"
        "print(numpy.fft.fft([1, 0]).real.tolist())\n"
        "print(numpy.polynomial.Polynomial([1, 2])(3))\n"
        "print(numpy.linalg.det(numpy.eye(3)), numpy.emath.sqrt(-1), numpy.ctypeslib.c_intp.__name__)\n"
        "print([len(packer.decompress(packer.compress(b'three'))) for packer in (bz2, lzma)])\n"
        "print(pickle.loads(pickle.dumps(numpy.arange(3))).tolist())\n"
        "from numpy.random import Generator\n"
        "import numpy.random.mtrand\n"
        "print(Generator.__name__, sys.modules['numpy.random'] is numpy.random)\n"
    )

    assert run(code).splitlines() == [
        "3",
        "2",
        "[1.0, 1.0]",
        "7.0",
        "1.0 1j c_long",
        "[5, 5]",
        "[0, 1, 2]",
        "Generator True",
    ]


def test_two_threads_want_the_same() -> None:
    """Each gets the module, whoever is first."""
    code = (
        "import numpy\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def use(_): return numpy.random.default_rng\n"
        "with ThreadPoolExecutor(8) as threads: print(len(set(threads.map(use, range(64)))))\n"
    )

    assert run(code) == "1"


def test_room_for_many_flows() -> None:
    """settle() may be called after every tick, with any number of flows."""
    assert run("settle(0); settle(100_003); settle(100_003); print('fine')") == "fine"
