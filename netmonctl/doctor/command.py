"""doctor: the command line of it. Everything else of the package is imported when it is used."""

from __future__ import annotations

from argparse import Namespace

from netmonctl.arguments import Commands, add_options
from netmonctl.client import Client
from netmonctl.errors import ExitCode
from netmonctl.output import Answer, Output, present


def add_parsers(commands: Commands) -> None:
    parser = commands.add(
        "doctor", run, "examine netmond and what it depends on: what does not work, why, and what to do"
    )
    add_options(parser, "verbose", "watch", "full")


def run(args: Namespace, client: Client, out: Output) -> ExitCode:
    """FAILURE if anything failed."""
    from netmonctl.doctor.examination import examine
    from netmonctl.doctor.machine import Machine
    from netmonctl.doctor.report import document, page, well

    code = ExitCode.OK

    def fetch() -> Answer:
        nonlocal code
        sections = examine(Machine(client))
        code = ExitCode.OK if well(sections) else ExitCode.FAILURE
        return Answer(
            data=document(sections),
            text=lambda style: page(sections, style, args.verbose, legend=not args.no_legend),
        )

    present(args, out, fetch)
    return code
