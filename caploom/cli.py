"""The `caploom` command: run a factory, look into it, ask what made a number, give away what it made.

Each command is imported when it is called: `caploom --version` loads none of them.
"""

import gc
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from keyword import iskeyword

import click

import caploom

GROUPS = {
    "Make": ("init", "caption", "demo", "run", "ui", "try", "retry"),
    "Look": ("check", "status", "plan", "inbox", "results", "failures", "statistics", "presets", "schema"),
    "Ask": ("compare", "versions", "lineage", "why", "trace", "diff", "sql"),
    "Give away": ("export", "checkpoint", "convert", "reproduce"),
}
"""Every command, in the order of the help. Its module in `caploom.commands` has its name, unless it is a plug-in's.

Where Python has the name for itself, module and function have a `_` behind it: `try_`."""

PLUG_INS = "caploom.commands"
"""The group of entry points that are commands of other packages, such as those that need Dagster."""


class _Commands(click.Group):
    """Finds commands by their names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        known = [name for names in GROUPS.values() for name in names]
        return [*known, *sorted({each.name for each in entry_points(group=PLUG_INS)} - set(known))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for plug_in in entry_points(group=PLUG_INS, name=cmd_name):
            command: click.Command = plug_in.load()
            return command
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        module = f"caploom.commands.{name}"
        if not any(cmd_name in names for names in GROUPS.values()) or find_spec(module) is None:
            return None
        own: click.Command = getattr(import_module(module), name)
        return own

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in known)
        for title, names in {**GROUPS, "Others": others}.items():
            found = ((name, self.get_command(ctx, name)) for name in names)
            rows = [(name, command.get_short_help_str(limit=200)) for name, command in found if command is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group(cls=_Commands)
@click.version_option(caploom.__version__)
def main() -> None:
    """A dataset factory for vision-language training."""
    # What a command reads it keeps until it ends: searching that for garbage took a quarter of the time of `status`.
    gc.set_threshold(1_000_000)


if __name__ == "__main__":
    main()
