"""The `caploom` command: look into a factory, ask what made a number, redo failures, prepare captioners.

Each command is a module of `caploom.commands`, imported when it is called: `caploom --version` loads none of them.
"""

import gc
from importlib import import_module

import click

import caploom

COMMANDS = {
    "check": "caploom.commands.check:check",
    "inbox": "caploom.commands.inbox:inbox",
    "plan": "caploom.commands.plan:plan",
    "status": "caploom.commands.status:status",
    "results": "caploom.commands.results:results",
    "failures": "caploom.commands.failures:failures",
    "retry": "caploom.commands.retry:retry",
    "statistics": "caploom.commands.statistics:statistics",
    "presets": "caploom.commands.presets:presets",
    "compare": "caploom.commands.compare:compare",
    "versions": "caploom.commands.versions:versions",
    "checkpoint": "caploom.commands.checkpoint:checkpoint",
    "convert": "caploom.commands.convert:convert",
    "export": "caploom.commands.export:export",
    "lineage": "caploom.commands.lineage:lineage",
    "why": "caploom.commands.why:why",
    "trace": "caploom.commands.trace:trace",
    "diff": "caploom.commands.diff:diff",
    "sql": "caploom.commands.sql:sql",
    "reproduce": "caploom.commands.reproduce:reproduce",
}
"""Every command, in the order of the help."""


class _Commands(click.Group):
    """Finds commands in `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Commands)
@click.version_option(caploom.__version__)
def main() -> None:
    """A dataset factory for vision-language training."""
    # What a command reads it keeps until it ends: searching that for garbage took a quarter of the time of `status`.
    gc.set_threshold(100_000)


if __name__ == "__main__":
    main()
