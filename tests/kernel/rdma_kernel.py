"""netmond as on a kernel with RDMA, whose netlink tells the queue pairs that are in QUEUE_PAIRS.

Devices are whatever is at /sys/class/infiniband: for a test, a tree mounted there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from netmond.__main__ import main
from netmond.kernel import rdma_netlink
from netmond.kernel.rdma_netlink import QueuePair

#: Beside that tree; a list of the fields of QueuePair.
QUEUE_PAIRS = Path("/sys/class/queue_pairs.json")


def _queue_pairs(device: int) -> list[QueuePair]:
    return [QueuePair(*fields) for fields in json.loads(QUEUE_PAIRS.read_text())]


if __name__ == "__main__":
    rdma_netlink.devices = lambda: {"rxe0": 0}
    rdma_netlink.queue_pairs = _queue_pairs
    rdma_netlink.bound_counters = lambda device: []
    rdma_netlink.statistics = lambda device, port: {}
    sys.exit(main())
