"""The tasks of a merge on a store at a URL, one after another in this process: they exchange through the bucket."""

import pytest
from large_tables import artifacts_of
from small_factory import settings_of

from caploom.common.hashing import file_sha256
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.stages import training_set as here
from caploom.stages.on_ray import merge as there
from caploom.storage.bucket import Bucket
from caploom.storage.store import Draft
from caploom.training_set.exclusions import Exclusions
from caploom.training_set.on_ray.exchange import exchange_for


class OneAfterAnother:
    """Where tasks run, without a cluster."""

    memory, parallel = 10**8, 2

    def put(self, value):
        return value

    def map(self, function, calls, *, gpu=False):
        return (function(*call) for call in calls)


@pytest.mark.parametrize("images", [0, 3_000])
def test_the_files_are_those_of_a_local_merge_and_the_bucket_is_left_clean(s3, tmp_path, monkeypatch, images):
    monkeypatch.setattr(there, "count_buckets", lambda size, memory: 3)
    url = f"s3://{s3[1]}/store"
    (tmp_path / "source").mkdir()
    recipes = {"r": {"captioners": "all", "filters": [{"max_repeats": 1}], "mix": {"multi_positive": 2}}}
    settings = settings_of(tmp_path / "source", store=url, recipes=recipes, executor="ray")
    factory = Factory.from_config(parse_config(settings, base=tmp_path, source="bucket.yaml"))
    recipe, artifacts = factory.config.recipe("r"), artifacts_of(factory.store, images, captioners=1)
    drafts = [tmp_path / "local", tmp_path / "bucket"]
    for draft in drafts:
        draft.mkdir()
    expected, rows_in = here._merge_here(factory, recipe, Draft(drafts[0]), artifacts, Exclusions(), None)

    exchange = exchange_for(factory.store, "f" * 64, drafts[1], None)
    job = there.Job(url, exchange, ["raw", "c0"], 0)
    tables = [there.Table(each.manifest.address, "pairs.parquet", None) for each in artifacts[0]]
    tables += [there.Table(each.manifest.address, "sheared.parquet", "c0") for each in artifacts[1]]
    run = there._Run(OneAfterAnother(), job, factory, recipe)
    reports = []
    tally, found_in = run.run(tables, Exclusions(), drafts[1], lambda *each: reports.append(each))
    assert any(key.startswith(".merging/") for key in Bucket(url).list(""))
    exchange.clear()
    assert not any(key.startswith(".merging/") for key in Bucket(url).list(""))

    local, bucket = ({path.name: file_sha256(path) for path in draft.iterdir()} for draft in drafts)
    assert bucket == local
    assert found_in == rows_in == 2 * images
    assert tally.row_count(found_in) == expected.row_count(rows_in)
    assert reports[-1][:2] == (rows_in, rows_in)
