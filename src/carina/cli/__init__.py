"""The command line: one dataclass per command with ``run()``; heavy imports happen inside ``run``.

``carina COMMAND`` imports only that command's module, so that help and short commands answer at once.
Exit codes: 0 done, 1 bad input or data, 2 usage, 130 stopped by Ctrl-C.
"""

import logging
import os
import sys
from importlib import import_module
from typing import Annotated, Any, Protocol, Union, runtime_checkable

import tyro

import carina
from carina.errors import CarinaError, UsageError
from carina.findings import RESEARCH_USE

COMMANDS = {
    "detect": "carina.cli.detect:Detect",
    "info": "carina.cli.info:Info",
    "demo": "carina.cli.demo:Demo",
    "serve": "carina.cli.serve:Serve",
    "view": "carina.cli.view:View",
    "pacs": "carina.cli.pacs:Pacs",
    "export": "carina.cli.export:Export",
    "phantom": "carina.cli.phantom:Phantom",
    "synthesize": "carina.cli.synthesize:Synthesize",
    "atlas": "carina.cli.atlas:Atlas",
    "prepare": "carina.cli.prepare:Prepare",
    "train": "carina.cli.train:Train",
    "tune": "carina.cli.tune:Tune",
    "recipe": "carina.cli.recipe:Recipe",
    "evaluate": "carina.cli.evaluate:Evaluate",
    "robustness": "carina.cli.robustness:Robustness",
    "runs": "carina.cli.runs:Runs",
    "models": "carina.cli.models:Models",
    "pretrained": "carina.cli.pretrained:Pretrained",
    "predict-image": "carina.cli.predict_image:PredictImage",
}
"""Command name to ``module:dataclass``; the first line of the dataclass's docstring is its help."""


@runtime_checkable
class Command(Protocol):
    """What every command is: a dataclass of arguments that can run."""

    def run(self) -> int | None:
        """Do the work; returns the exit code, None for 0."""


def _load(name: str) -> Any:
    module, _, attribute = COMMANDS[name].partition(":")
    return getattr(import_module(module), attribute)


def parse(arguments: list[str]) -> Command:
    """The command that the arguments ask for.

    Raises:
        SystemExit: help was asked for (code 0), or the arguments cannot be understood (code 2).
    """
    name = arguments[0] if arguments else "--help"
    command: Command
    if name in COMMANDS:
        command = tyro.cli(_load(name), prog=f"carina {name}", args=arguments[1:])
    else:
        # One line each; `carina COMMAND --help` tells the rest.
        loaded = {n: _load(n) for n in COMMANDS}
        any_command: Any = Union[  # noqa: UP007 - made at run time
            tuple(
                Annotated[c, tyro.conf.subcommand(n, description=c.__doc__.splitlines()[0])] for n, c in loaded.items()
            )
        ]
        command = tyro.cli(
            any_command,
            prog="carina",
            description=f"Lung-nodule analysis for chest CT. {RESEARCH_USE} `carina --version` prints the version.",
            args=arguments or [name],
        )
    return command


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``carina`` program; ends the process with the command's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--version"]:
        print(f"carina {carina.__version__}")
        raise SystemExit(0)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    command = parse(arguments)
    try:
        code = command.run()
        sys.stdout.flush()
    except CarinaError as error:
        print(f"carina: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
    except KeyboardInterrupt:
        print("carina: stopped", file=sys.stderr)
        raise SystemExit(130) from None  # as the shell says of a program that Ctrl-C ended
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:  # a folder that may not be written, a full disk: no fault of the program
        print(f"carina: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(code or 0)
