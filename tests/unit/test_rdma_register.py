"""Who holds which queue pair, look after look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.errors import KernelError
from netmond.kernel import wire
from netmond.model import NOBODY_UID
from netmond.rdma.register import MEMORY, Census, Register
from tests.unit.rdma_packets import ALICE, BOB, CGROUP, PROCESSES, UNIT, census, paths, queue_pair, tasks

SECOND = 1_000_000_000


def held(found: Census) -> list[tuple[int, int]]:
    """Number and user of those that are open."""
    open_ = found.holders[np.isinf(found.holders["gone"])]
    return sorted(zip(open_["qpn"].tolist(), open_["uid"].tolist(), strict=True))


def test_a_users() -> None:
    """The kernel names the thread that made it; its process, user and unit are told."""
    found = census(queue_pair(17, ALICE, remote_qpn=18))

    (holder,) = found.holders
    assert (holder["qpn"], holder["remote_qpn"], holder["port"]) == (17, 18, 1)
    assert (holder["pid"], holder["uid"], holder["comm"]) == (PROCESSES[ALICE], ALICE, b"ib_write_bw")
    assert (holder["cgroup"], found.unit.tolist()) == (CGROUP, [UNIT])
    assert (found.devices, found.type.tolist(), found.state.tolist()) == (("rxe0",), ["RC"], ["RTS"])
    assert found.reason == ""


def test_the_kernels() -> None:
    """They are root's, as its sockets are, under the module's name. What the one for services sends goes to
    another's."""
    (holder,) = census(queue_pair(1, pid=0, kernel="ib_core", type="GSI")).holders

    assert (holder["uid"], holder["pid"], holder["comm"], holder["remote_qpn"]) == (0, 0, b"ib_core", 1)


def test_nobody_knows() -> None:
    """Of a process that has ended, or is in another process namespace, a user is not made up."""
    found = census(queue_pair(17, NOBODY_UID), queue_pair(18, pid=0))

    assert held(found) == [(17, NOBODY_UID), (18, NOBODY_UID)]
    assert found.holders["pid"].tolist() == [0, 0]
    assert found.reason == ""


def test_processes_are_asked_for_once() -> None:
    """Only for queue pairs that are new: a process may have ended meanwhile, or have another user."""
    asked = []

    def told() -> NDArray[Any]:
        asked.append(1)
        return tasks() if len(asked) < 2 else np.zeros(0, wire.TASK)

    register = Register(told, paths)
    register.update([queue_pair(17, state="INIT")], begun=1)
    found = register.update([queue_pair(17, remote_qpn=18)], begun=2)

    assert (held(found), found.holders["remote_qpn"].tolist(), len(asked)) == ([(17, ALICE)], [18], 1)
    register.update([], begun=3)
    assert len(asked) == 1


def test_the_kernel_does_not_tell() -> None:
    """Then there is a reason, and it is asked again."""
    answers = [None, tasks()]

    def told() -> NDArray[Any]:
        answer = answers.pop(0)
        if answer is None:
            raise KernelError("not permitted")
        return answer

    register = Register(told, paths)
    first = register.update([queue_pair(17), queue_pair(1, pid=0, kernel="ib_core")], begun=1)
    second = register.update([queue_pair(17), queue_pair(1, pid=0, kernel="ib_core")], begun=2)

    assert held(first) == [(1, 0), (17, NOBODY_UID)]
    assert first.reason == "nobody can tell whose queue pairs are: not permitted"
    assert (held(second), second.reason) == ([(1, 0), (17, ALICE)], "")


def test_readiness() -> None:
    """What names processes is made ready before there is one; that it cannot be is said when need be."""

    def refused() -> NDArray[Any]:
        raise KernelError("not permitted")

    register = Register(refused, paths)
    register.prepare()

    assert register.update([], begun=1).reason == ""
    assert register.update([queue_pair(17)], begun=2).reason.endswith("not permitted")


def test_one_that_goes_is_remembered() -> None:
    """For as long as there may be flows of it, with the moment at which it was missing first."""
    register = Register(tasks, paths)
    register.update([queue_pair(17)], begun=SECOND)
    gone = register.update([], begun=3 * SECOND)
    later = register.update([], begun=round((3 + MEMORY) * SECOND))
    at_last = register.update([], begun=round((4 + MEMORY) * SECOND))

    assert [each.holders["gone"].tolist() for each in (gone, later, at_last)] == [[3.0], [3.0], []]
    assert gone.holders["uid"].tolist() == [ALICE]


def test_a_number_that_is_used_again() -> None:
    """By another process: both are known, each under an id of its own."""
    register = Register(tasks, paths)
    first = register.update([queue_pair(17, ALICE)], begun=SECOND)
    found = register.update([queue_pair(17, BOB)], begun=2 * SECOND)

    assert found.holders[["uid", "gone"]].tolist() == [(ALICE, 2.0), (BOB, np.inf)]
    assert found.holders["id"][0] == first.holders["id"][0] < found.holders["id"][1]


def test_the_same_number_on_two_devices_and_ports() -> None:
    """Numbers are a device's; every port has one for services."""
    found = census(
        queue_pair(17, ALICE, device="rxe0"),
        queue_pair(17, BOB, device="rxe1"),
        queue_pair(1, port=1, pid=0, kernel="ib_core", type="GSI"),
        queue_pair(1, port=2, pid=0, kernel="ib_core", type="GSI"),
    )

    assert held(found) == [(1, 0), (1, 0), (17, ALICE), (17, BOB)]


def test_nothing_new() -> None:
    """The same queue pairs are the same rows: only the moment of the look is another."""
    register = Register(tasks, paths)
    first = register.update([queue_pair(17)], begun=1)
    second = register.update([queue_pair(17)], begun=2)

    assert second.holders is first.holders
    assert (first.begun, second.begun) == (1, 2)
