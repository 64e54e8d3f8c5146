"""The sides of the benchmark: each gives Recall@1/5/10 both ways; the bare products give none."""

import numpy as np

from benchmarks.child import Done, Job
from benchmarks.retrieval.inputs import read_inputs

RECALL_AT = (1, 5, 10)
_PRODUCT_ROWS = 240
_CLIP_BENCHMARK_BATCH = 64  # of its command


def caploom(job: Job) -> Done:
    """Exact ranks of both directions in one pass."""
    from caploom.evaluation.metrics import recall_at
    from caploom.evaluation.retrieval import retrieval_ranks

    images, texts, owners = read_inputs(job.folder)
    with job.measured():
        ranks = retrieval_ranks(images, texts, owners)
        recalls = [recall_at(of, k) for of in (ranks.images, ranks.texts) for k in RECALL_AT]
    return _done(images, texts, recalls)


def clip_benchmark(job: Job) -> Done:
    """What its `evaluate` does with embeddings, in its own functions and its command's default batch."""
    import torch
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    torch.set_num_threads(1)
    images, texts, owners = read_inputs(job.folder)
    with job.measured():
        scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
        positives = torch.zeros_like(scores, dtype=torch.bool)
        positives[torch.arange(len(scores)), torch.from_numpy(owners)] = True
        recalls = [
            (batchify(recall_at_k, of, right, _CLIP_BENCHMARK_BATCH, "cpu", k=k) > 0).float().mean().item()
            for of, right in ((scores.T, positives.T), (scores, positives))
            for k in RECALL_AT
        ]
    return _done(images, texts, recalls)


def dense_topk(job: Job) -> Done:
    """The whole matrix, and `torch.topk` of its rows and of its columns."""
    import torch

    torch.set_num_threads(1)
    images, texts, owners = read_inputs(job.folder)
    with job.measured():
        right = torch.from_numpy(owners)
        scores = torch.from_numpy(images) @ torch.from_numpy(texts).T
        best_texts = torch.topk(scores, max(RECALL_AT), dim=1).indices
        best_images = torch.topk(scores.T, max(RECALL_AT), dim=1).indices
        found = right[best_texts] == torch.arange(len(images))[:, None], best_images == right[:, None]
        recalls = [hits[:, :k].any(dim=1).double().mean().item() for hits in found for k in RECALL_AT]
    return _done(images, texts, recalls)


def matmul(job: Job) -> Done:
    """numpy's product alone, the whole matrix at once."""
    images, texts, _ = read_inputs(job.folder)
    with job.measured():
        scores = images @ texts.T
    return _done(images, texts, [], checked=float(scores[-1, -1]))


def matmul_blocks(job: Job) -> Done:
    """The same in blocks that are thrown away: cheaper, as no memory is taken from the system."""
    images, texts, _ = read_inputs(job.folder)
    block = np.empty((_PRODUCT_ROWS, len(texts)), np.float32)
    with job.measured():
        for start in range(0, len(images), _PRODUCT_ROWS):
            rows = images[start : start + _PRODUCT_ROWS]
            np.matmul(rows, texts.T, out=block[: len(rows)])
    return _done(images, texts, [], checked=float(block[0, 0]))


def _done(images: np.ndarray, texts: np.ndarray, recalls: list[float], **more: float) -> Done:
    return Done(len(images) * len(texts), {"recalls": recalls, **more})
