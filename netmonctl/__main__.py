"""netmonctl: command line in, exit code out."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from netmonctl import (
    __version__,
    capture,
    client,
    completion,
    control,
    lists,
    log,
    path,
    rdma,
    remote,
    sessions,
    status,
    target,
    top,
    user,
)
from netmonctl.arguments import Commands, Parser, add_options, arrange
from netmonctl.doctor import command as doctor
from netmonctl.errors import CtlError, ExitCode, usage
from netmonctl.options import OPTIONS
from netmonctl.output import Output, standard_output
from netmonctl.render import escape
from netmonctl.selftest import command as selftest

DEFAULT_VERB = "status"

EPILOG = """\
Options may stand before or after the command.
Exit codes: 0 ok, 1 failure, 2 usage, 3 netmond is not running, 4 not allowed, 5 unknown object.
See netmonctl(1) for more.
"""


def parsers() -> tuple[ArgumentParser, Commands]:
    """The whole command line."""
    import argparse

    parser = Parser(
        prog="netmonctl",
        usage="netmonctl [OPTION...] [COMMAND] [ARGUMENT...]",
        add_help=False,
        description="Ask and control netmond: who uses the network on this machine, how much, with whom.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = Commands(parser)
    options = parser.add_argument_group("options")
    options.add_argument(
        "-h", "--help", action="help", help="show this help, or that of a command, and exit"
    )
    options.add_argument(
        "--version", action="version", version=f"netmonctl {__version__}", help="show the version and exit"
    )
    add_options(options)
    for module in (
        status,
        lists,
        user,
        target,
        log,
        top,
        capture,
        path,
        sessions,
        rdma,
        control,
        doctor,
        selftest,
    ):
        module.add_parsers(commands)
    parser.set_defaults(**{name: _default(option.how) for name, option in OPTIONS.items()})
    return parser, commands


def _default(how: Any) -> Any:
    return how.get("default", False if how.get("action") == "store_true" else None)


def main(
    argv: Sequence[str] | None = None,
    connect: Callable[[], client.Client] = client.connect,
    out: Output | None = None,
) -> int:
    """Run one command; never raises, never shows a traceback for what people do or meet."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        out = out or standard_output()
        code = _run(list(sys.argv[1:] if argv is None else argv), connect, out)
        out.stdout.flush()
    except CtlError as error:
        # Whatever the text quotes, it stays one line that cannot steer the terminal.
        print(f"netmonctl: {escape(str(error))}", file=sys.stderr if out is None else out.stderr)
        return error.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader has had enough.
        _discard(out)
        return ExitCode.OK
    except OSError as error:
        print(f"netmonctl: {error.strerror or error}", file=sys.stderr if out is None else out.stderr)
        _discard(out)
        return ExitCode.FAILURE
    return code


def _discard(out: Output | None) -> None:
    """What is still buffered must not fail once more when Python exits."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), (out.stdout if out else sys.stdout).fileno())


def _run(argv: list[str], connect: Callable[[], client.Client], out: Output) -> int:
    parser, commands = parsers()
    if "_ARGCOMPLETE" in os.environ:
        completion.answer(parser)
        return ExitCode.FAILURE
    line = arrange(argv, commands.verbs, DEFAULT_VERB)
    try:
        args, surplus = parser.parse_known_args(line.words())
    except SystemExit:  # after --help and --version, the only ones that end here
        return ExitCode.OK
    if surplus := [word for word in surplus if word != "--"]:
        raise usage(f"{args.verb} does not take {' '.join(surplus)}; see: netmonctl {args.verb} --help")
    args.title = " ".join(["netmonctl", *argv])
    if args.host is not None:
        return _run_remote(args, line.words(*OPTIONS["host"].flags), out)
    with connect() as netmond:
        netmond.interactive = out.stdin.isatty() and not args.no_ask_password
        code: ExitCode | None = args.run(args, netmond, out)
    return code or ExitCode.OK


def _run_remote(args: Namespace, words: list[str], out: Output) -> int:
    if args.file not in (None, "-"):
        raise usage(f"{args.file} is on this machine; write: netmonctl -H … target … - < FILE")
    if args.write not in (None, "-"):
        raise usage(f"{args.write} is on this machine; write: netmonctl -H … capture -w - … > FILE")
    if args.read not in (None, "-"):
        raise usage(f"{args.read} is on this machine; write: netmonctl capture --read {args.read}")
    return remote.run(args.host, words, terminal=out.terminal and out.stdin.isatty())


def _terminated(_signal: int, _frame: object) -> NoReturn:
    """Leave through the finally blocks, so that the terminal is given back as it was."""
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
