"""interface add/remove, reload, log-level: what changes the running netmond."""

from __future__ import annotations

from argparse import Namespace

from netmonctl import completers
from netmonctl.arguments import Commands, add_options, with_completer
from netmonctl.client import Client
from netmonctl.output import Answer, Output, done, present
from netmonctl.render import escape

LOG_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")


def add_parsers(commands: Commands) -> None:
    group = commands.group("interface", "choose the interfaces that netmond monitors")
    add = group.add("add", add_interface, "monitor this interface, too")
    remove = group.add("remove", remove_interface, "no longer monitor this interface")
    for parser, completer in ((add, completers.unmonitored), (remove, completers.monitored)):
        action = parser.add_argument(
            "name", metavar="NAME", help="interface name; see: netmonctl interfaces"
        )
        with_completer(action, completer)
    add_options(add, "attach")
    add_options(remove)
    add_options(commands.add("reload", reload, "read the configuration again"))
    level = commands.add("log-level", log_level, "show or set how much netmond logs")
    action = level.add_argument("level", nargs="?", metavar="LEVEL", help=", ".join(LOG_LEVELS))
    with_completer(action, lambda prefix, **_: [name for name in LOG_LEVELS if name.startswith(prefix)])
    add_options(level)


def add_interface(args: Namespace, client: Client, out: Output) -> None:
    client.monitor_interface(args.name, args.attach)
    done(args, out, {"interface": args.name}, f"Monitoring {escape(args.name)}.")


def remove_interface(args: Namespace, client: Client, out: Output) -> None:
    client.unmonitor_interface(args.name)
    done(args, out, {"interface": args.name}, f"No longer monitoring {escape(args.name)}.")


def reload(args: Namespace, client: Client, out: Output) -> None:
    """Warnings are about the configuration, not the result, so they go to standard error."""
    warnings = client.reload()
    for warning in warnings:
        out.note(f"netmonctl: warning: {escape(warning)}")
    done(args, out, warnings, "Configuration reloaded.")


def log_level(args: Namespace, client: Client, out: Output) -> None:
    if args.level is not None:
        client.set_log_level(args.level)
        done(args, out, {"log_level": args.level}, f"Log level set to {escape(args.level)}.")
        return
    level = client.log_level()
    present(args, out, lambda: Answer(data={"log_level": level}, text=lambda _: [escape(level)]))
