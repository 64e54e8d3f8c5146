"""`caploom plan`: what a run would make and how long it would take, before anything runs."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import user_errors


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with what each estimate is based on.")
@click.option(
    "--cluster",
    is_flag=True,
    help="Instead: the GPU hours for captioning 3 M, 15 M and 400 M images, at rates measured in the YAML's store and "
    "published ones; it needs no YAML.",
)
@click.option("--images", type=click.IntRange(min=1), multiple=True, help="--cluster: this many instead; repeatable.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="--cluster: working at once.")
@click.option(
    "--gpus-per-machine", type=click.IntRange(min=1), default=1, show_default=True, help="--cluster: for machine hours."
)
@click.option("--gpu-hour-price", type=click.FloatRange(min=0), help="--cluster: price of a GPU hour, any currency.")
@user_errors
def plan(
    config: Path | None,
    as_json: bool,
    cluster: bool,
    images: tuple[int, ...],
    gpus: int,
    gpus_per_machine: int,
    gpu_hour_price: float | None,
) -> None:
    """Preview what a run of the YAML would still make, and what it costs. Nothing is made.

    Counts are of what the store lacks. Seconds are estimated from rates measured in this store; where nothing similar
    has run yet, they are shown as unknown.
    """
    from caploom.config.factory import Factory

    factory = None if config is None else Factory.from_yaml(config)
    if cluster:
        from caploom.questions.cost.cluster import DATA_SETS, PUBLISHED, cluster_costs, cluster_text, measured_rates

        rates = [*(measured_rates(factory) if factory is not None else []), *PUBLISHED]
        costs = cluster_costs(
            rates,
            images or list(DATA_SETS.values()),
            gpus=gpus,
            gpus_per_machine=gpus_per_machine,
            gpu_hour_price=gpu_hour_price,
        )
        answer = {"gpus": gpus, "gpu_hour_price": gpu_hour_price, "captioning": [cost.to_dict() for cost in costs]}
        text = cluster_text(costs, gpus=gpus, gpu_hour_price=gpu_hour_price)
        click.echo(json.dumps(answer, indent=2) if as_json else text)
        return
    if factory is None:
        raise click.UsageError("Name the YAML whose run is to be previewed, or ask for --cluster.")
    if images or gpus != 1 or gpus_per_machine != 1 or gpu_hour_price is not None:
        raise click.UsageError("--images, --gpus, --gpus-per-machine and --gpu-hour-price go with --cluster.")
    from caploom.questions.cost.plan_cost import plan_cost
    from caploom.questions.cost.text import cost_text

    found = plan_cost(factory)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else cost_text(found))
