"""What an RDMA port has exchanged in all, whatever its device calls that."""

from __future__ import annotations

from collections.abc import Mapping

from netmond.model import IN_BYTES, IN_PACKETS, OUT_BYTES, OUT_PACKETS, RdmaPort

#: Counters of everything that passed, by column of model.COUNTERS. The first that a port has counts: that of
#: the specification (port counters of most adapters), of EFA and bnxt_re, of soft-RoCE; of irdma the sum.
_WHOLE = {
    IN_PACKETS: (("port_rcv_packets",), ("rx_pkts",), ("rcvd_pkts",), ("ip4InPkts", "ip6InPkts")),
    IN_BYTES: (("port_rcv_data",), ("rx_bytes",), ("ip4InOctets", "ip6InOctets")),
    OUT_PACKETS: (("port_xmit_packets",), ("tx_pkts",), ("sent_pkts",), ("ip4OutPkts", "ip6OutPkts")),
    OUT_BYTES: (("port_xmit_data",), ("tx_bytes",), ("ip4OutOctets", "ip6OutOctets")),
}


def whole(port: RdmaPort) -> Mapping[int, list[int]]:
    """Which of the port's counters (places in `names`) add up to one of the first four of model.COUNTERS.

    A column is missing if the device counts no such thing: soft-RoCE counts no bytes.
    """
    places = {name: place for place, (_, name) in enumerate(port.names)}
    found = {}
    for column, alternatives in _WHOLE.items():
        for names in alternatives:
            if places.keys() >= set(names):
                found[column] = [places[name] for name in names]
                break
    return found
