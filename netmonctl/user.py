"""user: everything about one user on a page."""

from __future__ import annotations

from argparse import Namespace

from netmonctl import completers
from netmonctl.arguments import Commands, add_options, with_completer
from netmonctl.client import Client
from netmonctl.errors import CtlError, ExitCode, usage
from netmonctl.list_columns import FLOWS, PEERS, PROCESSES, UNITS
from netmonctl.output import Answer, Output, present
from netmonctl.render import Column, Row, Style, escape, packet_rate, plural, rate, size, table

TOP = 10  #: rows of each table

SECTIONS: tuple[tuple[str, str, tuple[Column, ...]], ...] = (
    ("Top peers", "peers", PEERS),
    ("Top units", "units", UNITS),
    ("Top processes", "processes", tuple(c for c in PROCESSES if c.key != "user")),
    ("Top flows", "flows", tuple(c for c in FLOWS if c.key != "user")),
)


def add_parsers(commands: Commands) -> None:
    parser = commands.add("user", run, "totals, rates, top peers, units and processes of one user")
    action = parser.add_argument("user", metavar="NAME|UID", help="user name or number")
    with_completer(action, completers.users)
    add_options(parser, "lines", "watch", "full", "si")


def run(args: Namespace, client: Client, out: Output) -> None:
    uid = resolved(args.user)
    limit = TOP if args.lines is None else args.lines

    def fetch() -> Answer:
        row = client.user(uid, limit)
        return Answer(data=row, text=lambda style: page(row, style))

    present(args, out, fetch)


def resolved(name: str) -> int:
    """The uid of a user name, or the number itself."""
    if name.isascii() and name.isdecimal():
        if len(name) > 10 or int(name) >= 0xFFFFFFFF:
            raise usage(f"{name} is not a user number")
        return int(name)
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise CtlError(
            f"no user {name!r} on this machine; see: netmonctl users", ExitCode.UNKNOWN_OBJECT
        ) from None


def named(uid: int) -> str:
    """The login name of a uid, its number if it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def page(row: Row, style: Style) -> list[str]:
    """Totals and rates, then one small table per section that has rows."""
    head = f"{escape(str(row['user']))} ({row['uid']})"
    lines = [f"{style.paint(style.dot(True), 'green')} {style.paint(head, 'bold')}"]
    lines += [f"{name:>9}: {value}" for name, value in traffic(row, style)]
    lines += [f"{name:>9}: {value}" for name, value in rdma(row, style)]
    lines.append(f"{'Flows':>9}: {row['flow_count']} open")
    for title, key, columns in SECTIONS:
        if rows := row.get(key):
            lines += ["", f"{title}:", *table(columns, rows, style, indent="  ")]
    return lines


def traffic(row: Row, style: Style) -> tuple[tuple[str, str], ...]:
    """Labelled sums and rates of any row, in sentences."""
    packets = row["in_packets"] + row["out_packets"]
    count = row["in_bytes"] + row["out_bytes"]
    return (
        ("Inbound", _sum(row["in_bytes"], row["in_packets"], style)),
        ("Outbound", _sum(row["out_bytes"], row["out_packets"], style)),
        ("Total", _sum(count, packets, style)),
        ("Rate", f"in {_speed(row, 'in', style)}, out {_speed(row, 'out', style)}"),
    )


def rdma(row: Row, style: Style) -> tuple[tuple[str, str], ...]:
    """The same of RDMA, and with it; nothing for those who have none."""
    sides, pairs = ("in", "out"), row.get("queue_pairs", 0)
    if not any((pairs, *(row.get(f"rdma_{side}_bytes") for side in sides))):
        return ()
    moved = [_sum(row[f"rdma_{side}_bytes"], row[f"rdma_{side}_packets"], style) for side in sides]
    speeds = [f"{side} {rate(row[f'rdma_{side}_byte_rate'], style.si)}" for side in sides]
    return (
        ("RDMA in", moved[0]),
        ("RDMA out", moved[1]),
        ("RDMA rate", f"{', '.join(speeds)}, {plural(pairs, 'open queue pair')}"),
        ("IP + RDMA", f"{size(row['total_bytes'], style.si)}, {rate(row['total_byte_rate'], style.si)}"),
    )


def _sum(count: int, packets: int, style: Style) -> str:
    exact = f" ({plural(count, 'byte')})" if count >= 1000 else ""
    return f"{size(count, style.si)}{exact} in {plural(packets, 'packet')}"


def _speed(row: Row, side: str, style: Style) -> str:
    return f"{rate(row[f'{side}_byte_rate'], style.si)} ({packet_rate(row[f'{side}_packet_rate'])})"
