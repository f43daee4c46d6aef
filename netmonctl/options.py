"""The options of netmonctl in one table: each means the same with every command that takes it."""

from __future__ import annotations

from netmonctl import completers
from netmonctl.option import Option, column, seconds, switch, whole
from netmonctl.packet_options import PACKET_OPTIONS

OPTIONS: dict[str, Option] = {
    "json": Option(
        ("--json",),
        {
            "nargs": "?",
            "const": "pretty",
            "choices": ("short", "pretty", "off"),
            "default": "off",
            "help": "print JSON, on one line or indented (default: pretty)",
        },
        attached=True,
    ),
    "no_legend": switch("--no-legend", help="print neither header nor closing line"),
    "no_pager": switch("--no-pager", help="do not start a pager"),
    "no_ask_password": switch("--no-ask-password", help="do not ask for a password for what is not allowed"),
    "host": Option(
        ("-H", "--host"), {"metavar": "[USER@]HOST", "help": "ask the netmond of another machine, over ssh"}
    ),
    "full": switch("-l", "--full", help="neither shorten names nor leave out columns"),
    "si": switch("--si", help="sizes in powers of 1000 (kB) instead of 1024 (KiB)"),
    "verbose": switch(
        "-v", "--verbose", help="more detail: counters that are zero, hooks that were refused"
    ),
    "lines": Option(
        ("-n", "--lines"),
        {"metavar": "N", "type": whole(0, 0xFFFFFFFF), "help": "at most N rows, 0 for all"},
    ),
    "sort": Option(
        ("--sort",),
        {"metavar": "KEY", "type": column, "help": "sort by this key of the JSON form, such as in_bytes"},
        completers.sort_keys,
    ),
    "reverse": switch("-r", "--reverse", help="reverse the order"),
    "all": switch("-a", "--all", help="everyone's; where that is not allowed, asks for a password or fails"),
    "own": switch("--own", help="own figures only"),
    "watch": Option(
        ("--watch",),
        {
            "nargs": "?",
            "const": 5.0,
            "type": seconds,
            "metavar": "SECONDS",
            "help": "show again every so many seconds (default: 5) until interrupted",
        },
        attached=True,
    ),
    "user": Option(("-u", "--user"), {"metavar": "NAME|UID", "help": "only this user"}, completers.users),
    "every": Option(
        ("--every",),
        {"metavar": "N", "type": whole(1, 0xFFFFFFFF), "help": "only one of N packets (default: 1, all)"},
    ),
    "direction": Option(
        ("--dir", "--direction"),
        {"metavar": "in|out", "dest": "direction", "choices": ("in", "out"), "help": "only this direction"},
    ),
    "unit": Option(("--unit",), {"metavar": "UNIT", "help": "only this systemd unit"}, completers.units),
    "pid": Option(
        ("--pid",),
        {"metavar": "PID", "type": whole(0, 0xFFFFFFFF), "help": "only this process"},
        completers.processes,
    ),
    "process": Option(
        ("--process",), {"metavar": "NAME", "help": "only processes of this name"}, completers.names
    ),
    "protocol": Option(
        ("--proto", "--protocol"),
        {"metavar": "PROTO", "dest": "protocol", "help": "only this protocol: tcp, udp, icmp… or a number"},
        completers.protocols,
    ),
    "port": Option(
        ("-p", "--port"),
        {"metavar": "PORT", "type": whole(0, 65535), "help": "only this port, on either side"},
    ),
    "peer": Option(
        ("--peer",),
        {"metavar": "ADDR[/PREFIX]", "help": "only this remote address or prefix"},
        completers.peers,
    ),
    "interface": Option(
        ("-i", "--interface"), {"metavar": "NAME", "help": "only this interface"}, completers.interfaces
    ),
    "kind": Option(
        ("--kind",),
        {
            "metavar": "KIND",
            "choices": ("socket", "peer", "forwarded", "overflow", "roce"),
            "help": "only this kind of flow: socket, peer, forwarded, overflow or roce",
        },
    ),
    "traffic_type": Option(
        ("--traffic-type",),
        {
            "metavar": "TYPE",
            "choices": ("ip", "roce_v1", "roce_v2"),
            "help": "only flows that carry this: ip, roce_v1 or roce_v2",
        },
    ),
    "active": switch("--active", help="only flows with traffic just now"),
    "monitored": switch("--monitored", help="only interfaces that netmond watches"),
    "books": switch("--books", help="closed books: whose it was what the kernel counted there"),
    "device": Option(
        ("-d", "--device"),
        {"metavar": "DEVICE[/PORT]", "help": "all about this RDMA device, or this port of it"},
        completers.devices,
    ),
    "nccl": switch("--nccl", help="the counters that matter to NCCL, explained, and how each port fares"),
    "queue_pairs": switch("--qp", dest="queue_pairs", help="open queue pairs, and whose they are"),
    "attach": Option(
        ("--attach",),
        {
            "metavar": "MODE",
            "choices": ("auto", "tc", "xdp", "xdp-generic"),
            "help": "how to watch: auto, tc, xdp or xdp-generic",
        },
    ),
    "file": Option(
        ("-f", "--file"),
        {"metavar": "FILE", "help": "read addresses from FILE, - is standard input"},
        completers.files,
    ),
    "follow": switch("-f", "--follow", help="show what comes, too, until interrupted (default)"),
    "no_follow": switch("--no-follow", help="only what is there"),
    "resolve": switch("--resolve", help="names of hosts; an address stays one until its name is known"),
    **PACKET_OPTIONS,
    "delay": Option(
        ("-d", "--delay"),
        {
            "metavar": "SECONDS",
            "type": seconds,
            "default": 2.0,
            "help": "seconds between two updates (default: 2)",
        },
    ),
}

#: Letters that are a switch with a command, and take a value with others.
SWITCHES = {
    "log tail": {"-f"},
    "capture": {"-n"},
    "path": {"-d", "-s"},
}

#: What every command takes.
COMMON = ("json", "no_legend", "no_pager", "no_ask_password", "host")
