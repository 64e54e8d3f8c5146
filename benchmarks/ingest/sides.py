"""The sides of the benchmark: each reads the same files, pinned to one core unless it says otherwise."""

import hashlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.child import Done, Job

DAMAGED = 200


def caploom(job: Job) -> Done:
    """The ingest of a shard: every row checked, hashed and made a pair, as `raw_pairs` has it."""
    _pin_to_one_core()
    return caploom_all_cores(job)


def caploom_all_cores(job: Job) -> Done:
    """The same with a thread for each core."""
    from caploom.readers.source_row import SourceRow
    from caploom.stages.raw_pairs import validate_rows

    rows = [
        SourceRow(row=number, image=path.name, caption=f"picture {number}", path=str(path))
        for number, path in enumerate(_files(job), start=1)
    ]
    with job.measured():
        pairs, failures = validate_rows(rows)
    return _done(len(rows), {pair["image"]: pair["image_id"] for pair in pairs}, len(failures))


def check_alone(job: Job) -> Done:
    """The full check, SHA-256 and the perceptual hash, one file after another."""
    _pin_to_one_core()
    from caploom.images.check import check_image

    files, found = _files(job), {}
    with job.measured():
        for path in files:
            data = path.read_bytes()
            check_image(data, path.name)
            found[path.name] = hashlib.sha256(data).hexdigest()
    return _done(len(files), found, 0)


def pillow_load(job: Job) -> Done:
    """Decoding alone, as most code does it."""
    _pin_to_one_core()
    from PIL import Image

    files = _files(job)
    with job.measured():
        for path in files:
            Image.open(io.BytesIO(path.read_bytes())).load()
    return _done(len(files), {}, 0)


def simplejpeg_eighth(job: Job) -> Done:
    """Decoding alone, as the check does it: strictly, to grey, at an eighth of the size."""
    _pin_to_one_core()
    import simplejpeg

    files = _files(job)
    with job.measured():
        for path in files:
            data = path.read_bytes()
            simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, fastupsample=True, min_height=32, min_width=32)
    return _done(len(files), {}, 0)


def by_hand(job: Job) -> Done:
    """What people write: Pillow's load, hashlib, and imagehash on the picture."""
    _pin_to_one_core()
    import imagehash
    from PIL import Image

    files, found = _files(job), {}
    with job.measured():
        for path in files:
            data = path.read_bytes()
            image = Image.open(io.BytesIO(data))
            image.load()
            imagehash.phash(image)
            found[path.name] = hashlib.sha256(data).hexdigest()
    return _done(len(files), found, 0)


def img2dataset(job: Job) -> Done:
    """img2dataset's step between download and shard: its decode and size checks, then SHA-256; no perceptual hash."""
    _pin_to_one_core()
    import cv2
    from img2dataset.resizer import Resizer

    cv2.setNumThreads(1)
    resize = Resizer(image_size=500, resize_mode="no", resize_only_if_bigger=False, skip_reencode=True)
    files, found, failed = _files(job), {}, 0
    with job.measured():
        for path in files:
            data = path.read_bytes()
            *_, error = resize(io.BytesIO(data))
            failed += error is not None
            found[path.name] = hashlib.sha256(data).hexdigest()
    return _done(len(files), found, failed)


def inbox(job: Job) -> Done:
    """Three scans of an inbox of many files: the first notes them, the second takes in as many as a scan may."""
    from caploom.config.factory import Factory
    from caploom.config.factory_config import parse_config
    from caploom.inbox.scan import scan_inbox

    settings = {
        "name": "inbox",
        "store": f"store-{os.getpid()}",
        "inbox": {"folders": ["inbox"], "settle_seconds": 30, "gather_seconds": 0},
        "trainers": {"any": {"model": "picture-book", "steps": 1, "batch_size": 1}},
        "evaluation_sets": {"any": {"reader": "image_captions", "root": "inbox", "captions": "none.json"}},
        "recipes": {"raw-only": {"captioners": []}},
    }
    factory = Factory.from_config(parse_config(settings, base=job.folder, source="the benchmark"))
    seconds = {}
    with job.measured():
        for name, now in (("first_scan", 1_000.0), ("taking_scan", 1_100.0), ("next_scan", 1_200.0)):
            began = time.perf_counter()
            scan = scan_inbox(factory, now=now)
            seconds[name] = time.perf_counter() - began
            if name == "taking_scan" and not scan.new_shards:
                raise RuntimeError("the second scan took in nothing")
    return Done(job.options["files"], seconds)


def damaged(job: Job) -> Done:
    """How many of the cut and of the flipped files each of three checks refuses; nothing is timed."""
    from PIL import Image

    from caploom.errors import ImageFault
    from caploom.images.check import check_image

    def verify(data: bytes) -> None:
        Image.open(io.BytesIO(data)).verify()

    def load(data: bytes) -> None:
        Image.open(io.BytesIO(data)).load()

    def check(data: bytes) -> None:
        check_image(data, "damaged")

    counts = {}
    with job.measured():
        for kind in ("cut", "flipped"):
            files = sorted((job.folder / kind).iterdir())
            for name, test in (("verify", verify), ("load", load), ("check", check)):
                counts[f"{name}_{kind}"] = sum(_refuses(test, path.read_bytes(), ImageFault) for path in files)
    return Done(2 * DAMAGED, counts)


def _refuses(test: Callable[[bytes], None], data: bytes, fault: type[Exception]) -> bool:
    try:
        test(data)
    except (OSError, SyntaxError, ValueError, fault):
        return True
    return False


def _pin_to_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _files(job: Job) -> list[Path]:
    return sorted((job.folder / "pictures").iterdir())


def _done(count: int, identities: dict[str, str], failed: int) -> Done:
    digest = hashlib.sha256(repr(sorted(identities.items())).encode()).hexdigest() if identities else ""
    return Done(count, {"identities": digest, "failed": failed})
