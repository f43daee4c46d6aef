"""The keys of the outputs that the exporter runs. Nothing else of theirs is loaded into the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netmond.export.address import Address, addresses, parse
from netmond.settings import BOOLEAN, Kind, Setting, choice, number, size, text, whole

_PERIOD = number(1, 86400, "number of seconds")
_TIMEOUT = Setting(
    key="timeout", kind=number(0.1, 60, "number of seconds"), default=5.0,
    help="seconds after which a connection attempt or a delivery has failed",
)  # fmt: skip
_SPOOL = Setting(
    key="spool", kind=size(0, 1 << 40), default=64 << 20,
    help="bytes kept on the disk while the other side cannot be reached, the oldest go first; 0: none",
)  # fmt: skip
_FLOWS = Setting(
    key="flows", kind=whole(0, 10000), default=0,
    help="how many flows get series of their own, those with most bytes; the rest shares one; 0: no flows",
)  # fmt: skip


def _address(*schemes: str) -> Setting:
    return Setting(key="address", default="", kind=addresses(*schemes), help="where to deliver to")


def _listen(value: Any) -> Address:
    if not isinstance(value, str):
        raise TypeError
    return parse(f"tcp:{value}", ("tcp",))


_FILE = text("empty, or an absolute path", r"(/[^\x00-\x1f\x7f]{1,4000})?")

#: By output, all of them off unless their section says ``enabled = true`` or names where to deliver to.
OPTIONS: Mapping[str, tuple[Setting, ...]] = {
    "json": (
        _address("tcp", "unix"),
        Setting(key="interval", kind=_PERIOD, default=10.0, help="seconds between two batches of lines"),
        Setting(
            key="flows", kind=BOOLEAN, default=True,
            help="also a line for each flow that was active, not only users, units, interfaces and targets",
        ),
        _TIMEOUT,
        _SPOOL,
    ),
    "syslog": (
        _address("udp", "tcp", "unix"),
        Setting(key="interval", kind=_PERIOD, default=60.0, help="seconds between two summaries"),
        Setting(
            key="facility", default="daemon",
            kind=choice("daemon", "user", *(f"local{number}" for number in range(8))),
            help="the syslog facility",
        ),
        _TIMEOUT,
        _SPOOL,
    ),
    "prometheus": (
        Setting(
            key="listen", kind=Kind("host:port or [2001:db8::1]:port", _listen), default="127.0.0.1:9434",
            help="address and port to be scraped at; whoever can connect sees everybody's figures",
        ),
        _FLOWS,
    ),
    "push": (
        Setting(
            key="url", default="",
            kind=text("an http:// or https:// URL", r"(https?://[^\s\x00-\x1f\x7f]{1,2000})?"),
            help="where to send figures in the text format of Prometheus, such as"
            " http://localhost:8428/api/v1/import/prometheus",
        ),
        Setting(key="interval", kind=_PERIOD, default=15.0, help="seconds between two deliveries"),
        Setting(
            key="instance", kind=text("text", r"[^\x00-\x1f\x7f]{0,255}"), default="",
            help="the label instance; empty: the name of this machine",
        ),
        Setting(
            key="token_file", kind=_FILE, default="",
            help="file with a token to send as 'Authorization: Bearer'; user and password stand in the URL",
        ),
        Setting(
            key="ca_file", kind=_FILE, default="",
            help="certificates (PEM) of those who may vouch for the other side; empty: those of the system",
        ),
        _FLOWS,
        Setting(
            key="xtrace_names", kind=BOOLEAN, default=False,
            help="send flows under the four metric names of XTrace-Catch, too; 1000 unless flows is set",
        ),
        _TIMEOUT,
        _SPOOL,
    ),
    "ipfix": (
        _address("udp", "tcp"),
        Setting(key="interval", kind=_PERIOD, default=60.0, help="seconds between records of a long flow"),
        Setting(
            key="domain", kind=whole(0, (1 << 32) - 1), default=0, help="the observation domain (RFC 7011)"
        ),
        _TIMEOUT,
        _SPOOL,
    ),
}  # fmt: skip
