"""`caploom retry`: captions failed images again, and only those."""

from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.option("--captioner", "captioners", multiple=True, help="Only this captioner; may be given several times.")
def retry(config: Path, captioners: tuple[str, ...]) -> None:
    """Caption again the images that failed, and only those, as often as each captioner's `max_attempts` allows.

    `make run`, or materializing in the UI, then brings the new captions into the training sets.
    """
    from caploom.captioning.backend import load_backend
    from caploom.common.progress import track
    from caploom.config.factory import Factory
    from caploom.stages.retry_failures import retry_every_shard

    factory = Factory.from_yaml(config)
    for captioner in captioners or factory.config.captioners:
        with track(f"captions/{captioner}", "images") as bar:
            for shard, retried in retry_every_shard(factory, captioner, load_backend, bar):
                click.echo(
                    f"captions/{captioner} [{shard}]: {retried.tried} tried again, {retried.captioned} captioned, "
                    f"{retried.tried - retried.captioned} failed again; {retried.given_up} given up in all."
                )
