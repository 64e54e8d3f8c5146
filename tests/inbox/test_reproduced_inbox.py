import pytest

from caploom.config.factory import Factory
from caploom.readers.picture_book import PictureBookReader
from caploom.reproduce.reproduce import reproduce
from caploom.reproduce.verdict import verdict_text
from caploom.stages.raw_pairs import ingest_shard


@pytest.mark.parametrize("has_inbox", [True, False])
def test_an_inboxs_pairs_are_made_again_whatever_the_yaml_reads_by_now(fed, tmp_path, has_inbox):
    for number in range(3):
        fed.drop(f"{number}.png", number, f"caption {number}")
    (shard,) = fed.settled().new_shards
    config = fed.factory.config
    pairs = ingest_shard(fed.factory, shard)
    elsewhere = {"pairs": PictureBookReader(reader="picture_book", folder="scenes", scenes=3)}
    update = {**elsewhere, "inbox": config.inbox if has_inbox else None}
    result = reproduce(Factory(config.model_copy(update=update), fed.factory.store), pairs, tmp_path / "again")
    assert result.is_same, verdict_text(result)
