"""The retrieval_metrics asset tells what the recipe reached on earlier versions of its data."""

import dagster as dg
from grown_factory import grow, run, write

from caploom.questions.results.data_versions import data_versions
from caploom.report.versions import versions_markdown
from dagster_project.definitions import definitions_of
from dagster_project.jobs import RUN_RECIPE


def metadata_of(path):
    job = definitions_of(path).resolve_job_def(RUN_RECIPE)
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(
            instance=instance, partition_key="raw-only", asset_selection=[dg.AssetKey("retrieval_metrics")]
        )
    (made,) = done.asset_materializations_for_node("retrieval_metrics")
    return made.metadata


def test_versions_stand_among_the_metadata_as_soon_as_there_are_two(tmp_path):
    path = write(tmp_path)
    run(path, "raw-only", noise=2.0)
    assert "versions" not in metadata_of(path)
    grow(path, range(14, 18))
    factory = run(path, "raw-only", noise=0.6)
    found = data_versions(factory, "raw-only")
    assert len(found.versions) == 2
    assert metadata_of(path)["versions"].value == versions_markdown(found)
