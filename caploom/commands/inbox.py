"""`caploom inbox`: what is in the inbox, what became of it, and what was noticed."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.option("--scan", is_flag=True, help="Scan it now, as the sensor does, and split complete files into shards.")
@click.option("--look", is_flag=True, hidden=True)  # the old name of --scan
@click.option("--events", type=click.IntRange(min=0), default=20, show_default=True, help="Number of newest to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inbox(config: Path, scan: bool, look: bool, events: int, as_json: bool) -> None:
    """Say what waits in the inbox, which shards were created from it, and what was noticed about its files."""
    from caploom.common.settings import current_name
    from caploom.config.factory import Factory
    from caploom.errors import ConfigError
    from caploom.inbox.scan import scan_inbox
    from caploom.inbox.state import inbox_state

    factory = Factory.from_yaml(config)
    if factory.config.inbox is None:
        raise ConfigError(f"{config}: it has no `inbox`; name its folders there.")
    if look:
        current_name("option", "--look", {"--look": "--scan"})
    found = scan_inbox(factory) if scan or look else None
    state = inbox_state(factory, events)
    if as_json:
        click.echo(json.dumps(state.to_dict(), indent=2))
        return
    if found is not None and found.busy:
        click.echo("Another scan of the inbox is running.")
    for line in state.lines():
        click.echo(line)
