"""The standard protocols of retrieval, and what a set must contain to use their names.

Most irreproducible retrieval numbers were measured on the wrong split or with another number of captions, so a set that
names a protocol is refused unless it contains exactly what the protocol requires.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from caploom.errors import EvaluationError

CAPTIONS_EACH = 5


@dataclass(frozen=True)
class Protocol:
    """The required content of an evaluation set.

    Attributes:
        dataset: its name in Karpathy's files.
        title: its usual name.
        images: number of images.
        captions: total number of captions; any of these.
        first_only: whether only the first five captions of each image count.
        folds: images are divided into this many folds, in the file's order, and recalls averaged over them.
    """

    dataset: str
    title: str
    images: int
    captions: tuple[int, ...]
    first_only: bool = False
    folds: int = 1


PROTOCOLS = {
    "coco-5k": Protocol("coco", "COCO", 5_000, (25_010, 25_000)),
    "coco-1k": Protocol("coco", "COCO", 5_000, (25_000,), first_only=True, folds=5),
    "flickr30k-1k": Protocol("flickr30k", "Flickr30K", 1_000, (5_000,)),
}

_TEST_SETS = {"coco": "coco-5k", "flickr30k": "flickr30k-1k"}

# Numbers of images by which a split can be recognized.
_LIKELY = {
    1_000: "1,000 is Flickr30K's test split, or a part of COCO's",
    1_014: "1,014 is Flickr30K's validation split",
    5_000: "5,000 is COCO's test or validation split",
    29_000: "29,000 is Flickr30K's training split",
    30_504: "30,504 is COCO's split restval, which is for training",
    31_014: "31,014 is all of Flickr30K: take the test split",
    31_783: "31,783 is all of Flickr30K: take the test split",
    40_504: "40,504 is all of COCO's val2014: take Karpathy's test split",
    40_775: "40,775 is COCO's test2014, which has no public captions",
    82_783: "82,783 is COCO's training split",
    113_287: "113,287 is COCO's training split with restval",
    123_287: "123,287 is all of COCO 2014: take the test split",
}


def check_dataset(evaluation_set: str, protocol: str, dataset: str | None) -> None:
    """Refuse a file whose own name is another dataset's; raises `EvaluationError`."""
    wanted = PROTOCOLS[protocol].dataset
    if dataset is not None and dataset != wanted:
        raise EvaluationError(
            f'The evaluation set {evaluation_set} names the protocol {protocol}, which is for "{wanted}", but its file '
            f'calls itself "{dataset}": give it the other file or another protocol.'
        )


def check_counts(evaluation_set: str, protocol: str, captions: Mapping[str, int]) -> str:
    """Refuse a set that violates its protocol; returns the protocol's name with the number of captions.

    `captions` has the number of captions of each image. Raises `EvaluationError` with the expected and the actual
    numbers and the likely cause.
    """
    wanted = PROTOCOLS[protocol]
    opening = f"The evaluation set {evaluation_set} is not {protocol}:"
    if len(captions) != wanted.images:
        likely = _LIKELY.get(len(captions), "is it the whole test split, and nothing but that?")
        raise EvaluationError(f"{opening} it must have {wanted.images:,} images but has {len(captions):,} ({likely}).")
    fewer = [image for image, count in captions.items() if count < CAPTIONS_EACH]
    if fewer:
        cause = (
            "the file seems to have one caption per image, but the protocol needs all five"
            if max(captions.values()) == 1
            else "captions are missing from the file, or `captions_per_image` is below five"
        )
        raise EvaluationError(
            f"{opening} every image must have at least {CAPTIONS_EACH} captions, but {len(fewer):,} have fewer (the "
            f"first is {fewer[0]} with {captions[fewer[0]]}): {cause}."
        )
    counted = len(captions) * CAPTIONS_EACH if wanted.first_only else sum(captions.values())
    if counted not in wanted.captions:
        expected = " or ".join(f"{number:,}" for number in wanted.captions)
        raise EvaluationError(
            f"{opening} it must have {expected} captions but has {counted:,}; with `captions_per_image: 5` only the "
            "first five of each image are taken."
        )
    folds = f" in {wanted.folds} folds" if wanted.folds > 1 else ""
    return f"{protocol}: {wanted.images:,} images, {counted:,} captions{folds}"


def note_of(dataset: str | None, splits: list[str], images: int, captions: int) -> str | None:
    """The note for a set that names no protocol but is, by its file's own name, a known test split."""
    if dataset not in _TEST_SETS or splits != ["test"]:
        return None
    name = _TEST_SETS[dataset]
    known = PROTOCOLS[name]
    if images == known.images and captions in known.captions:
        return f"These are the numbers of {name}: with `protocol: {name}` they are checked and stand in the results."
    expected = " or ".join(f"{number:,}" for number in known.captions)
    return (
        f"{known.title}'s test split has {known.images:,} images and {expected} captions and this set has {images:,} "
        f"and {captions:,}: its recalls cannot be compared with published ones."
    )
