import pyarrow as pa
import pytest

from caploom.images.moves import STAYED, Moves

MOVES = Moves(
    (("/data/coco", "/mnt/coco"), ("/data/coco/held-out", "/data/coco/held-out"), ("s3://old/pictures", "s3://new/p")),
    store="/mnt/store",
)
PACK = "raw_pairs/0a1b/shard-00000/9f/images.pack"


@pytest.mark.parametrize(
    ("recorded", "present"),
    [
        ("/data/coco/1.jpg", "/mnt/coco/1.jpg"),
        ("/data/coco/some.tar#bytes=512+99", "/mnt/coco/some.tar#bytes=512+99"),
        ("/data/coco/held-out/1.jpg", "/data/coco/held-out/1.jpg"),
        ("/data/coco-2/1.jpg", "/data/coco-2/1.jpg"),
        ("s3://old/pictures/a/b.jpg", "s3://new/p/a/b.jpg"),
        ("/somewhere/else.jpg", "/somewhere/else.jpg"),
    ],
)
def test_a_location_is_followed_to_where_its_folder_is_now_and_back(recorded, present):
    assert MOVES.present(recorded) == present
    assert MOVES.recorded(present) == recorded


@pytest.mark.parametrize("before", ["/old/store", "s3://bucket/store", "/mnt/store"])
def test_a_copy_in_the_store_is_found_by_its_address(before):
    assert MOVES.present(f"{before}/{PACK}#bytes=5+7") == f"/mnt/store/{PACK}#bytes=5+7"
    assert Moves(store="memory://there").present(f"{before}/{PACK}#bytes=5+7") == f"memory://there/{PACK}#bytes=5+7"


def test_a_folder_that_moved_into_itself_or_out_of_itself_is_followed():
    for before, after in (("/data", "/data/deeper"), ("/data/deeper", "/data")):
        moves = Moves(((before, after),))
        assert moves.present(f"{before}/deeper/1.jpg") == f"{after}/deeper/1.jpg"
        assert moves.recorded(f"{after}/deeper/1.jpg") == f"{before}/deeper/1.jpg"


def test_the_paths_of_a_table_are_mapped_and_nothing_else():
    table = pa.table({"image_id": ["x"], "path": ["/data/coco/1.jpg"], "image": ["/data/coco/1.jpg"]})
    assert MOVES.of_table(table).to_pylist() == [
        {"image_id": "x", "path": "/mnt/coco/1.jpg", "image": "/data/coco/1.jpg"}
    ]
    assert STAYED.of_table(table) is table
