"""The command line: one dataclass per command with ``run()``; heavy imports happen inside ``run``.

``carina COMMAND`` imports only that command's module, so that ``carina --help`` and short commands answer at once.
Exit codes: 0 done, 1 bad input or data, 2 usage.
"""

import logging
import sys
from importlib import import_module
from typing import Any, Protocol

import tyro

import carina
from carina.errors import CarinaError, UsageError
from carina.findings import RESEARCH_USE

COMMANDS = {
    "detect": "carina.cli.detect:Detect",
}
"""Command name to ``module:dataclass``; the first line of the dataclass's docstring is its help."""


class Command(Protocol):
    """What every command is: a dataclass of arguments that can run."""

    def run(self) -> int | None:
        """Do the work; returns the exit code, None for 0."""


def _load(name: str) -> Any:
    module, _, attribute = COMMANDS[name].partition(":")
    return getattr(import_module(module), attribute)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``carina`` program; ends the process with the command's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--version"]:
        print(f"carina {carina.__version__}")
        raise SystemExit(0)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    named = arguments[0] if arguments and arguments[0] in COMMANDS else None
    commands = {name: _load(name) for name in ([named] if named else COMMANDS)}
    if not named and not any(a in ("-h", "--help") for a in arguments):
        arguments = ["--help"] if not arguments else arguments
    # tyro leaves the subcommand level out when there is one choice only; take the name off then.
    command: Command = tyro.extras.subcommand_cli_from_dict(
        commands,
        prog=f"carina {named}" if named else "carina",
        args=arguments[1:] if named else arguments,
        description=f"Lung-nodule analysis for chest CT. {RESEARCH_USE}",
    ) if not named else tyro.cli(commands[named], prog=f"carina {named}", args=arguments[1:])
    try:
        code = command.run()
    except UsageError as error:
        print(f"carina: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except CarinaError as error:
        print(f"carina: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(code or 0)
