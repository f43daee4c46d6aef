"""The options of capture and path."""

from __future__ import annotations

from netmonctl import completers
from netmonctl.option import Option, network, seconds, switch, whole

PACKET_OPTIONS: dict[str, Option] = {
    "read": Option(
        ("--read",),
        {"metavar": "FILE", "help": "show the packets of FILE, which is pcapng; - is standard input"},
        completers.files,
    ),
    "write": Option(
        ("-w", "--write"),
        {"metavar": "FILE", "help": "write the packets to FILE, as pcapng; - is standard output"},
        completers.files,
    ),
    "count": Option(
        ("-c", "--count"),
        {"metavar": "N", "type": whole(1, 0xFFFFFFFFFFFFFFFF), "help": "end after N packets or events"},
    ),
    "snaplen": Option(
        ("-s", "--snapshot-length"),
        {
            "metavar": "BYTES",
            "type": whole(0, 262144),
            "help": "at most so many bytes of each packet (default: 262144)",
        },
    ),
    "buffer": Option(
        ("-B", "--buffer-size"),
        {
            "metavar": "KIB",
            "type": whole(1, 1 << 22),
            "help": "room for packets that wait to be read, in KiB (default: 32768)",
        },
    ),
    "file_size": Option(
        ("-C", "--file-size"),
        {
            "metavar": "MILLIONS",
            "type": whole(1, 10**9),
            "help": "a new file after so many millions of bytes",
        },
    ),
    "file_duration": Option(
        ("-G", "--file-duration"),
        {"metavar": "SECONDS", "type": seconds, "help": "a new file after so many seconds"},
    ),
    "file_count": Option(
        ("-W", "--file-count"),
        {
            "metavar": "N",
            "type": whole(1, 10**6),
            "help": "with -C or -G: N files, of which the oldest is overwritten",
        },
    ),
    "duration": Option(
        ("--duration",), {"metavar": "SECONDS", "type": seconds, "help": "end after so many seconds"}
    ),
    "way": Option(
        ("-Q", "--dir", "--direction"),
        {
            "metavar": "in|out|inout",
            "dest": "way",
            "choices": ("in", "out", "inout"),
            "help": "only packets of this direction",
        },
    ),
    "hex": switch("-x", "--hex", help="the bytes of each packet, too"),
    "ascii": switch("-X", "--ascii", help="the same with the characters they are in ASCII"),
    "habits": Option(
        ("-n", "-l", "-U"),
        {"action": "store_true", "help": "taken from those who know tcpdump; it is so in any case"},
    ),
    "ip": Option(
        ("-i", "--ip"),
        {
            "metavar": "ADDR[/PREFIX]",
            "type": network,
            "help": "only packets from or to this address",
        },
        completers.peers,
    ),
    "stages": Option(
        ("--stages",),
        {"metavar": "STAGE[,STAGE...]", "help": "only these stages"},
        completers.stages,
    ),
    "drops": switch("--drops", help="only what was dropped, sent again or reset, and why"),
    "stats": switch("-s", "--stats", help="how many packets passed each stage and how long it took them"),
    "interval": Option(
        ("--interval",),
        {
            "metavar": "SECONDS",
            "type": seconds,
            "help": "seconds between two reports (default: 1)",
        },
    ),
    "journeys": switch("--follow", "--journeys", help="all events of a packet together, when it is at rest"),
    "debug_func": switch("-d", "--debug-func", help="which hook each stage has here, and why; then ends"),
    "rate": Option(
        ("--rate",),
        {
            "metavar": "N",
            "type": whole(0, 0xFFFFFFFF),
            "help": "at most N events a second, 0 for no limit (default: 10000)",
        },
    ),
}
