import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.captions import caption_column, raw_caption_column
from caploom.shearing.spans import Spans


def test_captions_are_the_same_every_time_and_mostly_of_10_to_60_words():
    first, again = pa.chunked_array(caption_column(3000)), pa.chunked_array(caption_column(3000))
    assert first == again
    assert first != pa.chunked_array(caption_column(3000, seed=1))
    words = Spans.whole(first.combine_chunks()).count_words()
    assert 30 < words.mean() < 45
    assert ((words >= 10) & (words <= 60)).mean() > 0.8
    beyond_ascii = pc.not_equal(pc.utf8_length(first), pc.binary_length(first))
    assert 0.02 < pc.mean(beyond_ascii).as_py() < 0.2


def test_raw_captions_are_short_and_some_stand_with_many_images():
    raw = pa.chunked_array(raw_caption_column(50_000))
    assert raw == pa.chunked_array(raw_caption_column(50_000))
    assert Spans.whole(raw.combine_chunks()).count_words().mean() < 20
    assert pc.max(pc.value_counts(raw.combine_chunks()).field("counts")).as_py() > 1
