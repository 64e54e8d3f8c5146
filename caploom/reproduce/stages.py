"""How each kind of artifact is made again: by its stage's own function, on a factory that holds what it was made from.

A new kind is one function here (or none, where one of these does) and one line in `STAGES`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from caploom.common.progress import Progress, StageBar
from caploom.config.factory import Factory
from caploom.config.factory_config import FactoryConfig
from caploom.config.recipes import Recipe
from caploom.reproduce.errors import NotReproducibleError
from caploom.reproduce.fresh_store import link_into, name_of
from caploom.reproduce.rebuild import SHEAR, rebuilt_captioner
from caploom.reproduce.times import begun
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Store
from caploom.training.launch import Launch

if TYPE_CHECKING:
    from caploom.captioning.backend import ImageRef


@dataclass(frozen=True)
class Work:
    """An artifact to be made again: its manifest, the fresh factory, the store it comes from.

    `present` is the YAML's configuration as it is now, `launch` how trainings are started.
    """

    recorded: Manifest
    factory: Factory
    original: Store
    ancestors: Mapping[str, Artifact]
    bar: StageBar
    present: FactoryConfig
    launch: Launch

    @property
    def progress(self) -> Progress:
        """The stage's progress."""
        return self.bar.part()

    @property
    def recipe(self) -> Recipe:
        """The artifact's recipe."""
        return self.factory.config.expanded_recipes()[0]

    @property
    def configuration(self) -> dict[str, Any]:
        """As recorded."""
        return self.recorded.configuration


@dataclass(frozen=True)
class Stage:
    """A kind of artifact: what makes it again, and where its code version stands (both `module:name`).

    `unit` is what its progress counts.
    """

    make: str
    code_version: str
    unit: str = "rows"


_HERE = "caploom.reproduce.stages"

STAGES: dict[str, Stage] = {
    "shards": Stage(f"{_HERE}:cut_shard", "caploom.stages.shards:CODE_VERSION"),
    "raw_pairs": Stage(f"{_HERE}:ingest", "caploom.stages.raw_pairs:CODE_VERSION"),
    "canaries": Stage(f"{_HERE}:canary", "caploom.stages.canaries:CODE_VERSION"),
    "captions": Stage(f"{_HERE}:caption", "caploom.stages.captions:CODE_VERSION", "images"),
    "raw_words": Stage(f"{_HERE}:count_raw_words", "caploom.stages.raw_words:CODE_VERSION"),
    "sheared": Stage(f"{_HERE}:shear", "caploom.stages.sheared:CODE_VERSION"),
    "sheared_captions": Stage(f"{_HERE}:shear_whole", "caploom.stages.sheared:CODE_VERSION", "tables"),
    "scores": Stage(f"{_HERE}:score", "caploom.training_set.scores:CODE_VERSION", "captions"),
    "near_duplicates": Stage(f"{_HERE}:find_near_duplicates", "caploom.stages.duplicates:CODE_VERSION"),
    "leakage": Stage(f"{_HERE}:find_leakage", "caploom.stages.duplicates:CODE_VERSION"),
    "training_set": Stage(f"{_HERE}:merge", "caploom.stages.training_set:CODE_VERSION", "captions"),
    "target_set": Stage(f"{_HERE}:make_target_set", "caploom.stages.target_set:CODE_VERSION"),
    "resized_images": Stage(f"{_HERE}:resize", "caploom.stages.resized_images:CODE_VERSION", "images"),
    "checkpoint": Stage(f"{_HERE}:train", "caploom.stages.checkpoint:CODE_VERSION", "steps"),
    "finetuned_checkpoint": Stage(f"{_HERE}:finetune", "caploom.stages.checkpoint:CODE_VERSION", "steps"),
    "evaluation_pairs": Stage(f"{_HERE}:make_evaluation_set", "caploom.evaluation.evaluation_pairs:CODE_VERSION"),
    "classification_images": Stage(
        f"{_HERE}:make_evaluation_set", "caploom.evaluation.classification_images:CODE_VERSION"
    ),
    "retrieval_metrics": Stage(f"{_HERE}:measure", "caploom.stages.retrieval_metrics:CODE_VERSION", "images and texts"),
    "ablation_report": Stage(f"{_HERE}:report", "caploom.report.make:CODE_VERSION"),
}
"""Every kind that can be made again."""


def stage_of(kind: str) -> Stage:
    """The stage of a kind; raises `NotReproducibleError` naming the known ones."""
    if kind not in STAGES:
        raise NotReproducibleError(f"Artifacts of the kind {kind} cannot be made again; known: {', '.join(STAGES)}.")
    return STAGES[kind]


def make_again(work: Work) -> None:
    """Have the stage make the artifact in the fresh store; raises the stage's own errors."""
    make: Callable[[Work], None] = _load(stage_of(work.recorded.kind).make)
    make(work)


def present_code_version(kind: str) -> str:
    """The code version of a kind's stage as it is now."""
    return str(_load(stage_of(kind).code_version))


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)


def cut_shard(work: Work) -> None:
    """`shards`: the rows that no other shard holds, next to the shards before it."""
    from caploom.reproduce.remaining_rows import RemainingRows
    from caploom.stages.shards import INBOX, create_new_shards, source_of

    config, shard = work.factory.config, work.configuration["shard"]
    if config.pairs is None or source_of(work.factory, shard) == INBOX:
        raise NotReproducibleError(
            f"{name_of(work.recorded)}: it lists what lay in the inbox that day, which may be gone or changed since; "
            "reproduce its raw_pairs, which have the images."
        )
    others = work.original.list("shards", name_of(work.recorded).split("/")[0])
    link_into(work.factory.store, [each for each in others if each.manifest.configuration["shard"] < shard])
    later = [each for each in others if each.manifest.configuration["shard"] > shard]
    update = {"pairs": RemainingRows(config.pairs, later), "shard_size": work.recorded.summary["rows"]}
    create_new_shards(Factory(config.model_copy(update=update), work.factory.store))


def ingest(work: Work) -> None:
    """`raw_pairs`: beside those of other shards that were there before, whose pairs it must not repeat."""
    from caploom.stages.raw_pairs import ingest_shard

    source, shard = name_of(work.recorded).split("/")
    earlier = [each for each in work.original.list("raw_pairs", source) if begun(each.manifest) < begun(work.recorded)]
    for pairs in earlier:
        if pairs.manifest.configuration["shard"] != shard:
            listings = [work.original.read(record.address) for record in pairs.manifest.inputs]
            link_into(work.factory.store, [pairs, *(each for each in listings if each is not None)])
    ingest_shard(work.factory, shard, work.progress)


def caption(work: Work) -> None:
    """`captions`: generated, but for those that an earlier attempt had already made when failures were redone."""
    from caploom.captioning.backend import load_backend
    from caploom.captioning.retries import ask_again
    from caploom.stages.captions import caption_shard

    captioner, fingerprint, shard = name_of(work.recorded).split("/")
    retries = work.configuration.get("retries", 0)
    if retries:
        attempts = work.original.list("captions", captioner, fingerprint, shard)
        before = [each for each in attempts if each.manifest.configuration.get("retries", 0) == retries - 1]
        if not before:
            raise NotReproducibleError(f"{work.recorded.address}: the captions whose failures it redid are not there.")
        link_into(work.factory.store, before)
    for _ in range(retries):
        ask_again(work.factory.store, captioner, fingerprint, shard)
    settings = work.factory.config.captioners[captioner]
    caption_shard(work.factory, captioner, shard, lambda: load_backend(settings, work.factory.store), work.progress)


def canary(work: Work) -> None:
    """`canaries`: asked with the images of the first shard that the captioner was given."""
    from caploom.captioning.backend import load_backend
    from caploom.stages.canaries import pass_canary

    captioner, fingerprint = name_of(work.recorded).split("/")
    captions = work.original.list("captions", captioner, fingerprint)
    for each in sorted(captions, key=lambda each: begun(each.manifest)):
        pairs = work.original.read(each.manifest.inputs[0].address)
        refs = _images_of(pairs) if pairs is not None else []
        if {ref.image for ref in refs} >= work.recorded.summary["texts"].keys():
            break
    else:
        raise NotReproducibleError(f"{work.recorded.address}: the captions before which it was asked are not there.")
    settings = rebuilt_captioner(work.present, captioner, each.manifest.configuration)
    backend = load_backend(settings, work.factory.store)
    try:
        pass_canary(work.factory.store, captioner, fingerprint, backend, refs)
    finally:
        backend.close()


def _images_of(pairs: Artifact) -> "list[ImageRef]":
    """The distinct images of raw pairs, as a captioner is given them."""
    from caploom.captioning.backend import ImageRef
    from caploom.stages.raw_pairs import read_pairs

    columns = ["image_id", "path", "image", "raw_caption", "width", "height"]
    refs: dict[str, ImageRef] = {}
    for row in read_pairs(pairs).select(columns).to_pylist():
        refs.setdefault(row["image_id"], ImageRef(**row))
    return list(refs.values())


def count_raw_words(work: Work) -> None:
    """`raw_words`: counted for any statistic, as the counts are the same for each."""
    from caploom.shearing.rules import CORPUS_WORDS, RULES
    from caploom.shearing.settings import ShearStep
    from caploom.stages.raw_words import corpus_words

    rule = next(name for name, rule in RULES.items() if CORPUS_WORDS in rule.needs)
    corpus_words(work.factory, [ShearStep(rule=rule, parameters={"length": "mean"})])


def shear(work: Work) -> None:
    """`sheared`: one captioner's captions of one shard."""
    from caploom.stages.sheared import shear_shard

    corpus = work.configuration.get("corpus_words", {})
    shard = name_of(work.recorded).split("/")[-1]
    shear_shard(work.factory, SHEAR, work.configuration["captioner"], shard, corpus)


def shear_whole(work: Work) -> None:
    """`sheared_captions`: what the tables of a recipe are together."""
    from caploom.stages.sheared import shear_recipe

    shear_recipe(work.factory, work.recipe, work.progress)


def find_near_duplicates(work: Work) -> None:
    """`near_duplicates`, at the distance of then."""
    from caploom.stages.duplicates import near_duplicates

    near_duplicates(_at_distance(work, "near_distance"), _raw_pairs(work))


def find_leakage(work: Work) -> None:
    """`leakage`, at the distance of then."""
    from caploom.stages.duplicates import leakage

    leakage(_at_distance(work, "leakage_distance"), name_of(work.recorded), _raw_pairs(work))


def _at_distance(work: Work, key: str) -> Factory:
    duplicates = work.factory.config.duplicates.model_copy(update={key: work.configuration["distance"]})
    return Factory(work.factory.config.model_copy(update={"duplicates": duplicates}), work.factory.store)


def _raw_pairs(work: Work) -> list[Artifact]:
    records = (each for each in work.recorded.inputs if each.address.startswith("raw_pairs/"))
    return [work.ancestors[each.address] for each in records]


def merge(work: Work) -> None:
    """`training_set`, beside all scores that its filters may look up."""
    from caploom.stages.training_set import merge_training_set

    for scorer in _scorers(work.factory, work.recipe):
        link_into(work.factory.store, work.original.list("scores", scorer))
    merge_training_set(work.factory, work.recipe, work.progress)


def _scorers(factory: Factory, recipe: Recipe) -> Iterator[str]:
    from caploom.common.hashing import fingerprint
    from caploom.training_set.filter_settings import ScoredStep
    from caploom.training_set.scores import scorer_identity

    for step in recipe.filters:
        if isinstance(step, ScoredStep):
            yield fingerprint(scorer_identity(step))


def train(work: Work) -> None:
    """`checkpoint`."""
    from caploom.stages.checkpoint import train_recipe

    progress = work.progress
    train_recipe(work.factory, work.recipe, lambda event: progress(event.step, event.steps), launch=work.launch)


def finetune(work: Work) -> None:
    """`finetuned_checkpoint`."""
    from caploom.stages.checkpoint import finetune_recipe

    progress = work.progress
    finetune_recipe(work.factory, work.recipe, lambda event: progress(event.step, event.steps), launch=work.launch)


def make_target_set(work: Work) -> None:
    """`target_set`."""
    from caploom.stages.target_set import target_set

    target_set(work.factory, name_of(work.recorded), work.progress)


def make_evaluation_set(work: Work) -> None:
    """`evaluation_pairs` and `classification_images`."""
    from caploom.stages.evaluation_sets import evaluation_set

    evaluation_set(work.factory, name_of(work.recorded), work.progress)


def measure(work: Work) -> None:
    """`retrieval_metrics`."""
    from caploom.stages.retrieval_metrics import measure_recipe

    measure_recipe(work.factory, work.recipe, work.bar)


def report(work: Work) -> None:
    """`ablation_report`, beside the captions of recipes that were not measured yet.

    What it did not show of earlier measurements is not there to be counted, nor the images that came in since: both
    are as recorded.
    """
    from caploom.report.make import make_report

    recorded = work.configuration
    make_report(
        work.factory,
        left_out=recorded.get("versions_left_out", {}),
        on_earlier_data=recorded.get("on_earlier_data", {}),
    )


def resize(work: Work) -> None:
    """`resized_images`: by a trainer of the YAML whose model looks at images of that shape."""
    from caploom.stages.resized_images import resized_images
    from caploom.training.objectives import create_objective

    for trainer in work.factory.config.trainers.values():
        decoder = create_objective(trainer, seed=0).decoder
        found = (list(decoder.shape), decoder.preprocessing.interpolation, decoder.preprocessing.resize_mode)
        if found == tuple(work.configuration[key] for key in ("shape", "interpolation", "resize_mode")):
            resized_images(work.factory, trainer, work.bar)
            return
    raise NotReproducibleError(
        f"{work.recorded.address}: no trainer of the YAML looks at images of the shape {work.configuration['shape']}."
    )


def score(work: Work) -> None:
    """`scores`: what a recipe's filters score as its training set is merged."""
    from caploom.reproduce.score_again import score_again

    score_again(work.present, work.recorded, work.original, work.factory.store, work.progress)
