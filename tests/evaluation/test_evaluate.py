import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from caploom.errors import EvaluationError, StoreError
from caploom.evaluation.embeddings import ClipEncoder
from caploom.evaluation.evaluate import evaluate_encoder
from caploom.evaluation.load_encoder import load_encoder
from caploom.storage.records import EVALUATION_PAIRS, RANKS, image_identity
from caploom.training.clip_model import create_clip_model, load_checkpoint, save_checkpoint

torch.set_num_threads(1)

CPU = torch.device("cpu")
IMAGES = 12


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    architecture = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(architecture))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_checkpoint(create_clip_model(str(tmp_path / "tiny.json"), seed=0), folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve noisy images with one to three captions each."""
    random = np.random.default_rng(0)
    rows = []
    for index in range(IMAGES):
        path = tmp_path / f"{index}.png"
        Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        captions = [f"picture {index} seen for time {time}" for time in range(1 + index % 3)]
        image_id = image_identity(path.read_bytes())
        rows.append({"image_id": image_id, "image": path.name, "path": str(path), "captions": captions, "phash": 0})
    file = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=EVALUATION_PAIRS), file)
    return file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def rewrite(pairs: Path, column: str, row: int, value: object) -> None:
    rows = pq.read_table(pairs).to_pylist()
    rows[row][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=EVALUATION_PAIRS), pairs)


def test_metrics_and_ranks_agree_with_embeddings_ranked_by_hand(checkpoint: Path, pairs: Path, out: Path) -> None:
    seen: list[tuple[int, int]] = []
    (metrics,) = evaluate_encoder(
        load_encoder(checkpoint, "cpu"), pairs, out=out, progress=lambda done, total: seen.append((done, total))
    ).values()
    rows = pq.read_table(pairs).to_pylist()
    encoder = ClipEncoder(load_checkpoint(checkpoint), CPU)
    images = encoder.embed_images([row["path"] for row in rows], [row["image_id"] for row in rows])
    owners = [index for index, row in enumerate(rows) for _ in row["captions"]]
    texts = encoder.embed_texts([text for row in rows for text in row["captions"]])
    assert np.linalg.norm(images, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(texts, axis=1) == pytest.approx(1, abs=1e-5)

    scores = images @ texts.T
    expected = {"image_to_text": [], "text_to_image": []}
    for image in range(IMAGES):
        order = sorted(range(len(owners)), key=lambda text: -scores[image, text])
        expected["image_to_text"].append(1 + next(n for n, text in enumerate(order) if owners[text] == image))
    for text, owner in enumerate(owners):
        expected["text_to_image"].append(1 + int((scores[:, text] > scores[owner, text]).sum()))

    ranks = pq.read_table(out / "ranks.parquet")
    assert ranks.schema == RANKS
    for direction, wanted in expected.items():
        assert [row["rank"] for row in ranks.to_pylist() if row["direction"] == direction] == wanted
    ids = [row["image_id"] for row in rows]
    assert ranks["query"].to_pylist()[:IMAGES] == ids
    assert ranks["query"].to_pylist()[IMAGES:][:3] == [f"{ids[0]}#0", f"{ids[1]}#0", f"{ids[1]}#1"]

    written = json.loads((out / "metrics.json").read_text())["cosine"]
    assert written == metrics.to_dict()
    assert (written["images"], written["captions"]) == (IMAGES, len(owners))
    recalls = [written[direction][f"recall@{k}"] for direction in expected for k in (1, 5, 10)]
    assert written["rsum"] == pytest.approx(100 * sum(recalls))
    assert written["mean_recall@1"] == pytest.approx((recalls[0] + recalls[3]) / 2)
    assert written["text_to_image"]["chance@1"] == pytest.approx(1 / IMAGES)
    assert written["image_to_text"]["mean_rank"] == pytest.approx(np.mean(expected["image_to_text"]))
    assert seen[-1] == (IMAGES + len(owners), IMAGES + len(owners))


def test_blocks_and_neighbours_do_not_change_an_embedding(checkpoint: Path) -> None:
    encoder = ClipEncoder(load_checkpoint(checkpoint), CPU)
    texts = [f"word {'long ' * (index % 9)}{index}" for index in range(300)]
    together = encoder.embed_texts(texts)
    alone = np.concatenate([encoder.embed_texts([text]) for text in texts[:12]])
    assert together.shape == (300, 16)
    assert together.dtype == np.float32
    assert alone == pytest.approx(together[:12], abs=1e-5)


def test_image_without_captions_is_refused_by_name(checkpoint: Path, pairs: Path, out: Path) -> None:
    rewrite(pairs, "captions", 4, [])
    with pytest.raises(EvaluationError, match=r"4\.png: this evaluation image has no caption"):
        evaluate_encoder(load_encoder(checkpoint, "cpu"), pairs, out=out)


def test_deleted_image_is_refused_by_name(checkpoint: Path, pairs: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "7.png").unlink()
    with pytest.raises(EvaluationError, match=r"7\.png: there is no such file"):
        evaluate_encoder(load_encoder(checkpoint, "cpu"), pairs, out=out)
    assert not list(out.iterdir())


def test_set_too_small_for_recall_at_ten_is_refused(checkpoint: Path, pairs: Path, out: Path) -> None:
    pq.write_table(pq.read_table(pairs).slice(0, 9), pairs)
    with pytest.raises(EvaluationError, match=r"pairs\.parquet: Recall@10 needs at least 10 .* has 9 images"):
        evaluate_encoder(load_encoder(checkpoint, "cpu"), pairs, out=out)


def test_model_whose_embeddings_are_no_numbers_is_refused(checkpoint: Path, pairs: Path, out: Path) -> None:
    model = load_checkpoint(checkpoint)
    with torch.no_grad():
        model.network.text_projection.fill_(float("nan"))
    save_checkpoint(model, checkpoint)
    with pytest.raises(EvaluationError, match='embedding of "picture 0 seen for time 0" is not a number'):
        evaluate_encoder(load_encoder(checkpoint, "cpu"), pairs, out=out)


def test_checkpoint_that_is_not_there_and_file_that_holds_no_pairs_are_refused(
    checkpoint: Path, pairs: Path, out: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="not a checkpoint"):
        evaluate_encoder(load_encoder(tmp_path / "nowhere", "cpu"), pairs, out=out)
    with pytest.raises(EvaluationError, match="these are not evaluation pairs"):
        evaluate_encoder(load_encoder(checkpoint, "cpu"), tmp_path / "tiny.json", out=out)
