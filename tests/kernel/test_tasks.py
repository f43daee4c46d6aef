"""Who processes are: what the kernel says of them, asked for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from netmond.kernel.cgroups import CgroupPaths, find_cgroup2
from netmond.kernel.tasks import Tasks
from netmond.units import unit_of
from tests.kernel.conftest import USER, Scene

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return Tasks()


def thread(tasks: Tasks, tid: int) -> Any:
    """The one of this number, as a record."""
    found = tasks.read()
    (task,) = found[found["tid"] == tid]
    return task


def test_processes_of_two_users(tasks: Tasks, scene: Scene) -> None:
    """Each with its user, its command and its unit, although none of them is ours."""
    agents = {uid: scene.user(uid) for uid in (USER, USER + 1)}
    paths = CgroupPaths(find_cgroup2())

    for uid, agent in agents.items():
        task = thread(tasks, agent.pid)
        cgroup = int(task["cgroup"])
        assert (task["pid"], task["uid"]) == (agent.pid, uid)
        assert task["comm"] == Path(f"/proc/{agent.pid}/comm").read_bytes().rstrip(b"\n")
        assert unit_of(paths.look_up([cgroup])[cgroup])[0] == scene.unit.name


def test_a_thread_is_its_process(tasks: Tasks) -> None:
    """Whatever the thread calls itself, command and number are the process's."""
    ready, done = threading.Event(), threading.Event()
    tids = []

    def run() -> None:
        Path("/proc/thread-self/comm").write_text("other")
        tids.append(threading.get_native_id())
        ready.set()
        done.wait()

    other = threading.Thread(target=run)
    other.start()
    ready.wait()
    task = thread(tasks, tids[0])
    done.set()
    other.join()

    assert task["tid"] != task["pid"] == os.getpid()
    assert task["comm"] == Path("/proc/self/comm").read_bytes().rstrip(b"\n")


_INSIDE = """
import json, os
from netmond.kernel.tasks import Tasks
print(json.dumps([os.getpid(), Tasks().read()[["tid", "pid"]].tolist()]))
"""


def test_in_a_process_namespace_of_its_own(tasks: Tasks) -> None:
    """Threads have the numbers that the reader's namespace gives, by which its kernel interfaces name them;
    processes those of the machine, as everywhere."""
    done = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", _INSIDE],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    own, found = json.loads(done.stdout)

    pids = dict(found)
    assert own == 1
    assert set(pids) < set(range(1, 100))
    assert pids[1] > 1
