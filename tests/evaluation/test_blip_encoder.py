import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from caploom.errors import EvaluationError
from caploom.evaluation import blip_encoder
from caploom.evaluation.evaluate import evaluate_encoder
from caploom.evaluation.load_encoder import load_encoder
from caploom.storage.records import EVALUATION_PAIRS, image_identity
from caploom.training.blip_model import create_blip, load_blip, save_blip
from caploom.training.images import ImageDecoder

torch.set_num_threads(1)

RERANKED = "ITC + ITM re-ranking of the top 256"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    save_blip(create_blip("blip-picture-book", seed=0), folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    rows = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
        captions = [f"a cat and {number} boats", f"{number} red balloons"][: 1 + number % 2]
        identity = image_identity(path.read_bytes())
        rows.append(
            {
                "image_id": identity,
                "image": path.name,
                "path": str(path),
                "captions": captions,
                "fold": None,
                "phash": 0,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=EVALUATION_PAIRS), tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


@pytest.mark.parametrize(("images", "at_once"), [(64, 256), (2, 3), (1, 1)])
def test_pairs_are_scored_as_the_model_scores_them_one_by_one(
    checkpoint: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, images: int, at_once: int
) -> None:
    monkeypatch.setattr(blip_encoder, "_IMAGES_AT_ONCE", images)
    monkeypatch.setattr(blip_encoder, "_PAIRS_AT_ONCE", at_once)
    rows = pq.read_table(pairs).to_pylist()
    paths, ids = [row["path"] for row in rows], [row["image_id"] for row in rows]
    texts = [text for row in rows for text in row["captions"]]
    encoder = load_encoder(checkpoint, "cpu")
    image, text = np.array([5, 0, 11, 5, 2, 5, 5]), np.array([3, 17, 0, 4, 3, 0, 9])
    scores = encoder.pair_scorer.score(paths, ids, texts, image, text)
    model = load_blip(checkpoint)
    decoder = ImageDecoder(model.preprocessing)
    for place, (i, t) in enumerate(zip(image, text, strict=True)):
        pixels = decoder.normalize(torch.from_numpy(decoder.decode(paths[i], ids[i]))[None])
        with torch.inference_mode():
            alone = model.network.match(model.network.encode_images(pixels)[1], model.tokenize([texts[t]]))[0, 1]
        assert scores[place] == pytest.approx(alone.item(), abs=1e-5)


def test_both_scorings_are_measured_and_labelled(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    seen: list[tuple[int, int]] = []
    metrics = evaluate_encoder(
        load_encoder(checkpoint, "cpu"),
        pairs,
        out=tmp_path / "out",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert list(metrics) == ["ITC", RERANKED]
    assert metrics["ITC"].images == metrics[RERANKED].images == 12
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())) == ["ITC", RERANKED]
    ranks = pq.read_table(tmp_path / "out" / "ranks.parquet")
    assert set(ranks["scoring"].to_pylist()) == {"ITC", RERANKED}
    assert len(ranks) == 2 * (12 + 18)
    done = [each for each, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (12 + 18 + 12 * 18 + 18 * 12,) * 2


def test_a_deleted_image_is_named(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "7.png").unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(EvaluationError, match=r"7\.png: there is no such file"):
        evaluate_encoder(load_encoder(checkpoint, "cpu"), pairs, out=tmp_path / "out")
