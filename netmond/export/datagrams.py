"""IPFIX messages over UDP: at a pace that a collector can take, and with an ear for refusals.

Nobody acknowledges a datagram. But where nobody listens, the other machine usually says so (ICMP port
unreachable), and a connected socket gets to hear it. Then the rest waits, and goes on where it stopped.
"""

from __future__ import annotations

import errno
import socket
from time import monotonic

from netmond.export.address import Address
from netmond.export.connection import connect, has_ended, raise_pending, unavailable
from netmond.export.ipfix_messages import split

#: Messages sent at once, and seconds of pause behind them. 16 of 1,400 bytes take a sixth of what a socket
#: holds by default (`net.core.rmem_default`); 3,200 a second are 35,000 records.
BURST, PAUSE = 16, 0.005

#: After so many seconds of silence nothing follows the templates for so long: a refusal would come first.
SILENCE, PATIENCE = 1.0, 0.05


class Datagrams:
    """Sends parcels to one address, a datagram for each message. For one thread."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address, self._timeout = address, timeout
        self._socket: socket.socket | None = None
        self._parcel = b""  # the one that was not sent as a whole yet
        self._done = 0  # how many of its messages were, beside the templates
        self._heard = float("-inf")  # when the last parcel was not refused, monotonic

    def send(self, parcel: bytes) -> None:
        """Send the templates, and the messages or what a failure left of them. Unavailable: it failed."""
        if parcel != self._parcel:
            self._parcel, self._done = parcel, 0
        if self._socket is None:
            self._socket = connect(self._address, self._timeout)
        begun = self._done
        try:
            self._send(self._socket, *split(parcel))
        except OSError as error:
            self.close()  # the name may lead elsewhere by now
            if error.errno == errno.ECONNREFUSED:  # this is about the message before
                self._done = max(begun, self._done - 1)
            raise unavailable(self._address, error, connected=True) from error
        self._parcel, self._heard = b"", monotonic()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket, self._heard = None, float("-inf")

    def _send(self, connected: socket.socket, templates: memoryview, *messages: memoryview) -> None:
        connected.send(templates)
        if monotonic() > self._heard + SILENCE:
            _listen(connected, PATIENCE)
        for message in messages[self._done :]:
            connected.send(message)
            self._done += 1
            if self._done % BURST == 0:
                _listen(connected, PAUSE)
        _listen(connected, PAUSE)


def _listen(connected: socket.socket, seconds: float) -> None:
    """Wait that long for an error of what was sent before."""
    if has_ended(connected, seconds):
        raise_pending(connected)
