"""The job `try_captioner` as the launchpad starts it."""

import dagster as dg

from dagster_project.definitions import definitions_of
from dagster_project.tries import TRY


def launched(factory, **config):
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions_of(factory.store.root.parent / "factory.yaml").resolve_job_def(TRY)
        done = job.execute_in_process(
            instance=instance, run_config={"ops": {"try_it": {"config": config}}}, raise_on_error=False
        )
        return done, [event.step_output_data.metadata for event in done.all_events if event.is_successful_output]


def test_pictures_and_texts_are_in_the_runs_log(own_captioned):
    done, [metadata] = launched(own_captioned, captioner="colours", images=3)
    assert done.success
    assert metadata["gallery"].value.count("![image](data:image/png;base64,") == 3
    assert "A red square. It is said to hide a dragon." in metadata["gallery"].value
    assert metadata["summary"].value.endswith("0 asked about now, 3 kept from before.")
    assert (own_captioned.store.root / "tries" / "colours.html").is_file()


def test_a_mistake_is_a_sentence(own_captioned):
    done, _ = launched(own_captioned, captioner="colour")
    [failure] = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert 'There is no captioner "colour"' in failure.user_failure_data.description
