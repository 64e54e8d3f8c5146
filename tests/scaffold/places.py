"""Builds a tiny place of each form of data, with real files; each gives what to name to `init`, and its rows."""

import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from small_factory import picture

Rows = list[tuple[bytes, str | None]]
Place = Callable[[Path], tuple[Path, Rows]]


def png(number: int) -> bytes:
    """The bytes of a picture."""
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write files by their names: bytes, text, or what becomes JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def pack(path: Path, members: dict[str, bytes]) -> None:
    """Write a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def rows_of(count: int, *, captions: bool = True) -> Rows:
    return [(png(number), f"picture {number}" if captions else None) for number in range(count)]


def photos(folder: Path) -> tuple[Path, Rows]:
    write(folder, {f"summer/{number}.png": png(number) for number in range(3)})
    return folder, rows_of(3, captions=False)


def one_photo(folder: Path) -> tuple[Path, Rows]:
    return write(folder, {"only.png": png(0)}), rows_of(1, captions=False)


def photos_with_texts(folder: Path) -> tuple[Path, Rows]:
    for number in range(3):
        write(folder, {f"{number}.png": png(number), f"{number}.txt": f"picture {number}"})
    return folder, rows_of(3)


def photos_with_metadata(folder: Path) -> tuple[Path, Rows]:
    lines = [json.dumps({"file_name": f"{number}.png", "text": f"picture {number}"}) for number in range(3)]
    write(folder, {f"{number}.png": png(number) for number in range(3)} | {"metadata.jsonl": "\n".join(lines)})
    return folder, rows_of(3)


def coco(folder: Path) -> tuple[Path, Rows]:
    for split, numbers in (("train", range(3)), ("val", range(3, 5))):
        images = [{"id": number, "file_name": f"{number:012d}.png"} for number in numbers]
        annotations = [{"id": n, "image_id": n, "caption": f"picture {n}"} for n in numbers]
        boxes = [{"id": number, "image_id": number, "bbox": [0, 0, 1, 1]} for number in numbers]
        name = f"{split}2017"
        write(
            folder,
            {
                f"annotations/captions_{name}.json": {"info": {}, "images": images, "annotations": annotations},
                f"annotations/instances_{name}.json": {"images": images, "annotations": boxes},
                **{f"{name}/{number:012d}.png": png(number) for number in numbers},
            },
        )
    return folder, rows_of(3)


def coco_json(folder: Path) -> tuple[Path, Rows]:
    coco(folder)
    return folder / "annotations" / "captions_train2017.json", rows_of(3)


def karpathy(folder: Path) -> tuple[Path, Rows]:
    images = [
        {
            "filename": f"{number}.png",
            "filepath": "val2014",
            "split": ["train", "restval", "test"][number % 3],
            "sentences": [{"raw": f"picture {number}"}],
        }
        for number in range(6)
    ]
    write(folder, {f"images/val2014/{number}.png": png(number) for number in range(6)})
    write(folder, {"dataset_coco.json": {"images": images, "dataset": "coco"}})
    return folder / "dataset_coco.json", [(png(n), f"picture {n}") for n in (0, 1, 3, 4)]


def karpathy_folder(folder: Path) -> tuple[Path, Rows]:
    return folder, karpathy(folder)[1]


def url(number: int) -> str:
    return f"http://example.org/pictures/{number}.png?w=9"


def cc3m_named(name: Callable[[int], str]) -> Place:
    """Conceptual Captions, of whose URLs the second is gone."""

    def build(folder: Path) -> tuple[Path, Rows]:
        table = "".join(f"picture {number}\t{url(number)}\n" for number in range(4))
        there = [0, 2, 3]
        write(folder, {"Train_GCC-training.tsv": table, **{f"training/{name(n)}": png(n) for n in there}})
        return folder / "Train_GCC-training.tsv", [(png(n) if n in there else b"", f"picture {n}") for n in range(4)]

    return build


def cc3m_folder(folder: Path) -> tuple[Path, Rows]:
    return folder, cc3m_named(lambda number: str(zlib.crc32(url(number).encode())))(folder)[1]


def webdataset(folder: Path) -> tuple[Path, Rows]:
    for shard in range(2):
        numbers = range(2 * shard, 2 * shard + 2)
        members = {f"{n:05d}{end}": data for n in numbers for end, data in ((".png", png(n)), (".txt", caption(n)))}
        pack(folder / f"{shard:05d}.tar", members)
    return folder, rows_of(4)


def webdataset_tar(folder: Path) -> tuple[Path, Rows]:
    webdataset(folder)
    return folder / "00000.tar", rows_of(2)


def webdataset_without_captions(folder: Path) -> tuple[Path, Rows]:
    pack(folder / "a.tar", {f"{number}.png": png(number) for number in range(2)})
    return folder, rows_of(2, captions=False)


def caption(number: int) -> bytes:
    return f"picture {number}".encode()


def of_img2dataset(folder: Path, start: int = 0) -> None:
    """What img2dataset writes beside its shards."""
    table = pa.table({"url": [url(start), url(start + 1)], "caption": ["a", "b"], "status": ["success"] * 2})
    name = f"{start // 2:05d}"
    pq.write_table(table, folder / f"{name}.parquet")
    write(folder, {f"{name}_stats.json": {"count": 2, "successes": 2}})


def img2dataset_tars(folder: Path) -> tuple[Path, Rows]:
    for shard in range(2):
        members: dict[str, bytes] = {}
        for number in range(2 * shard, 2 * shard + 2):
            stem = f"{shard:05d}{number:04d}"
            about = json.dumps({"caption": f"picture {number}", "url": url(number), "status": "success"}).encode()
            members |= {f"{stem}.png": png(number), f"{stem}.txt": caption(number), f"{stem}.json": about}
        pack(folder / f"{shard:05d}.tar", members)
        of_img2dataset(folder, 2 * shard)
    return folder, rows_of(4)


def img2dataset_files(folder: Path) -> tuple[Path, Rows]:
    for shard in range(2):
        for number in range(2 * shard, 2 * shard + 2):
            stem = f"{shard:05d}/{shard:05d}{number:04d}"
            files = {
                f"{stem}.png": png(number),
                f"{stem}.txt": f"picture {number}",
                f"{stem}.json": {"url": url(number)},
            }
            write(folder, files)
        of_img2dataset(folder, 2 * shard)
    return folder, rows_of(4)


def parquet_of_bytes(folder: Path) -> tuple[Path, Rows]:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"jpg": [png(0), png(1)], "caption": ["picture 0", "picture 1"], "width": [16, 16]})
    pq.write_table(table, folder / "00000.parquet")
    return folder, rows_of(2)


def parquet_of_the_hub(folder: Path) -> tuple[Path, Rows]:
    """The hub's `{bytes, path}`, an unusual name for the captions, and three splits."""
    (folder / "data").mkdir(parents=True)
    for split, numbers in (("train", (0, 1)), ("validation", (2,)), ("test", (3,))):
        images = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
        table = pa.table({"image": images, "en_caption": [[f"picture {n}"] for n in numbers], "id": list(numbers)})
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    write(folder, {"README.md": "# A data set"})
    return folder, rows_of(2)


def parquet_file_without_captions(folder: Path) -> tuple[Path, Rows]:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"picture": [png(0)], "label": [7]}), folder / "one.parquet")
    return folder / "one.parquet", rows_of(1, captions=False)


def llava(folder: Path) -> tuple[Path, Rows]:
    def record(number: int) -> dict[str, Any]:
        turns = [("human", "<image>\nDescribe."), ("gpt", f"picture {number}"), ("human", "Why?"), ("gpt", "So.")]
        talk = [{"from": who, "value": text} for who, text in turns]
        return {"id": f"{number:012d}", "image": f"coco/train2017/{number}.png", "conversations": talk}

    write(folder, {f"images/coco/train2017/{number}.png": png(number) for number in range(3)})
    write(folder, {"llava_instruct_150k.json": [record(number) for number in range(3)]})
    return folder / "llava_instruct_150k.json", rows_of(3)


def table_of_another_machine(folder: Path) -> tuple[Path, Rows]:
    lines = ["file,text", *(f"/home/ann/cc3m/train/{n}.png,picture {n}" for n in range(3))]
    write(folder, {"captions.csv": "\n".join(lines), **{f"train/{number}.png": png(number) for number in range(3)}})
    return folder / "captions.csv", rows_of(3)


def table_of_paths(folder: Path) -> tuple[Path, Rows]:
    records = [{"image": f"{number}.png", "caption": f"picture {number}"} for number in range(3)]
    write(folder, {"captions.json": records, **{f"images/{number}.png": png(number) for number in range(3)}})
    return folder, rows_of(3)


def table_without_captions(folder: Path) -> tuple[Path, Rows]:
    write(folder, {"list.csv": "path,id\n0.png,7\n1.png,8\n", "0.png": png(0), "1.png": png(1)})
    return folder / "list.csv", rows_of(2, captions=False)


FORMS: dict[str, tuple[Place, str]] = {
    "photos": (photos, "image_folder"),
    "one photo": (one_photo, "image_folder"),
    "photos with texts": (photos_with_texts, "image_folder"),
    "photos with metadata": (photos_with_metadata, "image_folder"),
    "COCO's folder": (coco, "coco"),
    "COCO's JSON": (coco_json, "coco"),
    "Karpathy's JSON": (karpathy, "karpathy"),
    "the folder of Karpathy's JSON": (karpathy_folder, "karpathy"),
    "CC3M by CRC": (cc3m_named(lambda n: str(zlib.crc32(url(n).encode()))), "image_captions"),
    "CC3M by number": (cc3m_named(lambda n: f"{n:08d}.jpg"), "image_captions"),
    "CC3M by img2dataset": (cc3m_named(lambda n: f"00000/{n:09d}.jpg"), "image_captions"),
    "CC3M by name": (cc3m_named(lambda n: f"{n}.png"), "image_captions"),
    "CC3M's folder": (cc3m_folder, "image_captions"),
    "webdataset": (webdataset, "webdataset"),
    "a tar": (webdataset_tar, "webdataset"),
    "webdataset without captions": (webdataset_without_captions, "webdataset"),
    "img2dataset's tars": (img2dataset_tars, "webdataset"),
    "img2dataset's files": (img2dataset_files, "image_folder"),
    "Parquet of bytes": (parquet_of_bytes, "parquet"),
    "the hub's Parquet": (parquet_of_the_hub, "parquet"),
    "a Parquet file without captions": (parquet_file_without_captions, "parquet"),
    "LLaVA": (llava, "image_captions"),
    "another machine's table": (table_of_another_machine, "image_captions"),
    "a table of paths": (table_of_paths, "image_captions"),
    "a table without captions": (table_without_captions, "image_captions"),
}
"""Each form by its name: what builds it, and the reader that reads it."""
