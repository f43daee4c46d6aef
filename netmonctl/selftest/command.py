"""selftest: the command line of it. Everything else of the package is imported when it is used."""

from __future__ import annotations

import os
from argparse import Namespace

from netmonctl.arguments import Commands, add_options
from netmonctl.client import Client
from netmonctl.errors import CtlError, ExitCode
from netmonctl.output import ERASE_LINE, Answer, Output, present


def add_parsers(commands: Commands) -> None:
    add_options(
        commands.add("selftest", run, "send known traffic past every counter, and compare"), "attach"
    )


def run(args: Namespace, client: Client, out: Output) -> ExitCode:
    """FAILURE: a counter is wrong. CtlError: the test could not be made."""
    if os.geteuid() != 0:
        raise CtlError("selftest makes a network namespace: run it as root, with sudo", ExitCode.NOT_ALLOWED)
    from netmonctl.selftest.checks import checks
    from netmonctl.selftest.report import data, lines
    from netmonctl.selftest.trial import carry_out

    def progress(what: str) -> None:
        if out.terminal and args.json == "off":
            out.stdout.write(f"\r{what}{ERASE_LINE}")
            out.stdout.flush()

    found = checks(carry_out(client, args.attach, progress))
    answer = Answer(data=data(found), text=lambda style: lines(found, style, args.no_legend))
    present(args, out, lambda: answer)
    return ExitCode.FAILURE if any(check.failed for check in found) else ExitCode.OK
