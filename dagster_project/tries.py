"""The job `try_captioner`: a captioner on a few images from the UI's launchpad, its gallery in the run's log."""

import dagster as dg
from pydantic import Field

from caploom.common.progress import track
from caploom.tries.try_captioner import IMAGES, try_captioner
from dagster_project.assets.materialization import user_errors
from dagster_project.pools import GPU_POOL
from dagster_project.resources.factory import FactoryResource

TRY = "try_captioner"


class Trial(dg.Config):
    """The launchpad's fields."""

    captioner: str = Field(description="The captioner's name in the YAML.")
    images: int = Field(default=IMAGES, description="Number of images, the first ones of the first shard.")


@dg.op(
    name="try_it",
    out=dg.Out(dg.Nothing),
    pool=GPU_POOL,  # the captioner is not known before it is launched, and most take a GPU
    description="Has a captioner caption a few images; pictures and texts are in its output's metadata.",
)
def _try(context: dg.OpExecutionContext, config: Trial, factory: FactoryResource) -> None:
    with user_errors(), track(f"captions/{config.captioner}", "images", log=context.log.info) as bar:
        opened = factory.open(context.run.run_id)
        tried = try_captioner(opened, config.captioner, config.images, progress=bar.part())
    context.log.info(tried.summary())
    context.add_output_metadata(
        {
            "summary": tried.summary(),
            "gallery": dg.MetadataValue.md(tried.gallery_markdown()),
            "page": dg.MetadataValue.path(str(tried.page)),
            "generated": tried.generated,
            "failed": tried.failed,
        }
    )


@dg.job(
    name=TRY,
    description="Has a captioner caption a few images before a run has it caption all; their texts are kept.",
)
def try_job() -> None:
    """One try."""
    _try()
