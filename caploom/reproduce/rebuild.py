"""The configuration that an artifact was made with, put together from its manifest and those of what it was made from.

What no manifest records decides only where and how fast work runs (batch sizes, devices, folders of the pictures): that
is taken from the present YAML, or left at its default.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.settings import Captioner, PromptedSettings
from caploom.common.text import printable
from caploom.config.factory_config import FactoryConfig
from caploom.config.inbox import InboxSettings
from caploom.config.recipes import Finetuning, Recipe
from caploom.errors import CaploomError, ConfigError
from caploom.evaluation.settings import EvaluationSet
from caploom.readers.ingest_settings import IngestSettings
from caploom.readers.moved import differs_in_place_only
from caploom.readers.picture_book import PictureBookReader
from caploom.readers.registry import Reader
from caploom.readers.source_reader import SourceReader
from caploom.reproduce.fresh_store import name_of
from caploom.shearing.settings import ShearStep
from caploom.stages.registry import load_stage, stages
from caploom.stages.shards import INBOX
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact
from caploom.training.identity import trainer_identity
from caploom.training.settings import TrainerSettings
from caploom.training_set.filter_settings import FilterStep
from caploom.training_set.settings import MixSettings

SHEAR = "reproduced"
"""What a shear is called where no manifest names it."""

_CAPTIONER: TypeAdapter[Any] = TypeAdapter(Captioner)
_EVALUATION_SET: TypeAdapter[Any] = TypeAdapter(EvaluationSet)
_READER: TypeAdapter[Any] = TypeAdapter(Reader)
_FILTER: TypeAdapter[Any] = TypeAdapter(FilterStep)
_TRAINER: TypeAdapter[Any] = TypeAdapter(TrainerSettings)
_ARCHITECTURES = Path(__file__).parents[1] / "training" / "architectures"
_CONTENT = "content:"
"""Stands before the hash of a model's file: a manifest has its content and not its path."""


class NotReproducibleError(CaploomError):
    """An artifact's configuration cannot be put together again; the message says what is missing or has changed."""


class RebuiltConfig(FactoryConfig):
    """A configuration with the recipes that manifests record, instead of those that the YAML expands to."""

    arms: list[Recipe] = Field(default=[], exclude=True)

    def expanded_recipes(self) -> list[Recipe]:
        """The recorded recipes."""
        return list(self.arms)


def rebuilt_config(
    present: FactoryConfig, manifest: Manifest, ancestors: Mapping[str, Artifact], scratch: Path
) -> RebuiltConfig:
    """The configuration of an artifact; raises `NotReproducibleError` when it cannot be put together.

    `scratch` is a folder for pictures that are to be drawn anew: the YAML's own folder is left as it is.
    """
    recorded = _Recorded(manifest, ancestors)
    values = {name: getattr(present, name) for name in FactoryConfig.model_fields}
    training_sets = recorded.of_kind("training_set")
    if training_sets:
        values["training_json"] = training_sets[0].configuration["json"]
    for listing in reversed(recorded.of_kind("shards")):  # of the newest version of the data last
        if name_of(listing).startswith(f"{INBOX}/"):  # whose folders may be others by now, or gone
            values["inbox"] = present.inbox or InboxSettings(folders=[str(scratch / "inbox")])
        elif present.pairs is not None:
            values["pairs"] = _reader(present.pairs, listing.configuration["reader"], _READER, "pairs", scratch)
    for pairs in recorded.of_kind("raw_pairs")[:1]:
        values["ingest"] = IngestSettings(**pairs.configuration.get("ingest", {}))
    for key, kind in (("near_distance", "near_duplicates"), ("leakage_distance", "leakage")):
        for each in recorded.of_kind(kind):
            values["duplicates"] = values["duplicates"].model_copy(update={key: each.configuration["distance"]})
    values["captioners"] = {**present.captioners, **_captioners(present, recorded)}
    values["shears"] = {**present.shears, **_shears(recorded)}
    values["evaluation_sets"] = {**present.evaluation_sets, **_evaluation_sets(present, recorded, scratch)}
    values["target_sets"] = {**present.target_sets, **_target_sets(present, recorded, scratch)}
    return RebuiltConfig.model_construct(**values, arms=_recipes(present, recorded))


class _Recorded:
    """The manifests of an artifact and of all that it was made from."""

    def __init__(self, manifest: Manifest, ancestors: Mapping[str, Artifact]) -> None:
        self.manifest = manifest
        self._by_address = {address: artifact.manifest for address, artifact in ancestors.items()}

    def of_kind(self, kind: str) -> list[Manifest]:
        """Those of a kind, the artifact's own first."""
        return [each for each in (self.manifest, *self._by_address.values()) if each.kind == kind]

    def inputs(self, manifest: Manifest, *kinds: str) -> list[Manifest]:
        """The inputs, in their order; of these kinds alone, if some are named."""
        known = (self._by_address.get(record.address) for record in manifest.inputs)
        return [each for each in known if each is not None and (not kinds or each.kind in kinds)]


def rebuilt_captioner(present: FactoryConfig, name: str, configuration: Mapping[str, Any]) -> Any:
    """A captioner's settings as `captions` records them; raises `NotReproducibleError` when it is another by now."""
    recorded = dict(configuration["settings"])
    stops = recorded.pop("stops", [])
    settings = _overlaid(_CAPTIONER, present.captioners.get(name), recorded, "backend", f"captioners.{name}")
    if stops and isinstance(settings, PromptedSettings):
        steps = tuple(tuple(ShearStep.model_validate(step) for step in shear) for shear in stops)
        settings = settings.model_copy(update={"stops": steps})
    wanted, found = configuration["captioner_fingerprint"], captioner_fingerprint(settings)
    if found != wanted:
        raise NotReproducibleError(
            f"The captioner {name} is another one by now (fingerprint {wanted} then, {found} now) though its settings "
            f"are as recorded: the content of {printable(settings.label)} has changed, or Caploom's captioning code."
        )
    return settings


def _captioners(present: FactoryConfig, recorded: _Recorded) -> dict[str, Any]:
    wanted = {each.configuration["captioner"]: each.configuration for each in recorded.of_kind("captions")}
    return {name: rebuilt_captioner(present, name, configuration) for name, configuration in wanted.items()}


def _shears(recorded: _Recorded) -> dict[str, list[ShearStep]]:
    tables = recorded.of_kind("sheared")
    shears = {SHEAR: _steps(tables[0])} if tables else {}
    for whole in recorded.of_kind("sheared_captions"):
        parts = recorded.inputs(whole, "sheared")
        if parts and whole.configuration["shear"] != "none":
            shears[whole.configuration["shear"]] = _steps(parts[0])
        else:
            shears.setdefault(whole.configuration["shear"], [])
    return shears


def _steps(sheared: Manifest) -> list[ShearStep]:
    return [ShearStep.model_validate(step) for step in sheared.configuration["steps"]]


def _evaluation_sets(present: FactoryConfig, recorded: _Recorded, scratch: Path) -> dict[str, Any]:
    sets = {}
    for each in (*recorded.of_kind("evaluation_pairs"), *recorded.of_kind("classification_images")):
        name = name_of(each)
        reader = each.configuration.get("reader", each.summary.get("reader"))
        where = f"evaluation_sets.{name}"
        sets[name] = _reader(present.evaluation_sets.get(name), reader, _EVALUATION_SET, where, scratch)
    return sets


def _target_sets(present: FactoryConfig, recorded: _Recorded, scratch: Path) -> dict[str, Any]:
    sets = {}
    for each in recorded.of_kind("target_set"):
        name, reader = name_of(each), each.summary.get("reader")
        sets[name] = _reader(present.target_sets.get(name), reader, _READER, f"target_sets.{name}", scratch)
    return sets


def _reader(present: Any, recorded: Mapping[str, Any] | None, kind: TypeAdapter[Any], where: str, scratch: Path) -> Any:
    """A reader's recorded settings over the present ones.

    The present ones stand where an older manifest has none, and where they differ in place alone: its files moved.
    """
    if recorded is None and present is None:
        raise NotReproducibleError(f"{where}: the YAML has it no more, and no manifest says what it was.")
    if recorded is None or (isinstance(present, SourceReader) and differs_in_place_only(present, recorded)):
        return present
    if recorded["reader"] == "picture_book":
        drawn = _overlaid(kind, present, {"folder": str(scratch / "none"), **recorded}, "reader", where)
        if isinstance(present, PictureBookReader):
            drawn = drawn.model_copy(update={"folder": present.folder})
        # Reading draws what is not there, in the place of what is: never in the user's own folder.
        return drawn if drawn.is_drawn else drawn.model_copy(update={"folder": scratch / where})
    return _overlaid(kind, present, recorded, "reader", where)


def _overlaid(kind: TypeAdapter[Any], present: Any, recorded: Mapping[str, Any], tag: str, where: str) -> Any:
    """Recorded settings over what is not recorded of the present ones of the same sort, such as where a folder is."""
    same = present is not None and getattr(present, tag) == recorded[tag]
    now = present.model_dump(mode="json") if same else {}
    if tag == "reader" and same:
        # A reader does not record a key that was left at its default: today's value of it says nothing of then.
        now = {key: value for key, value in now.items() if key not in present.fingerprinted()}
    try:
        return kind.validate_python({**now, **recorded})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise NotReproducibleError(
            f"{where}: its recorded settings cannot be used ({key}: {first['msg']}); name it in the YAML as it was."
        ) from None


def _recipes(present: FactoryConfig, recorded: _Recorded) -> list[Recipe]:
    """The recipes whose artifacts it was made from: its own, or all that a report tells of."""
    kinds, waiting = _recipe_kinds(), recorded.manifest.configuration.get("waiting", ())
    own: dict[str, Manifest] = {}
    for each in sorted(_tops(recorded, recorded.manifest, kinds), key=lambda each: -kinds.index(each.kind)):
        own.setdefault(name_of(each), each)  # those of earlier versions of its data stand after it
    made = [_recipe(present, recorded, each) for name, each in own.items() if name not in waiting]
    return [*made, *(_waiting(present, name) for name in waiting)]


def _tops(recorded: _Recorded, manifest: Manifest, kinds: Sequence[str]) -> Iterator[Manifest]:
    """The artifact, or the nearest that it was made from, of which a recipe has one."""
    if manifest.kind in kinds:
        yield manifest
        return
    for each in recorded.inputs(manifest):
        yield from _tops(recorded, each, kinds)


def _recipe_kinds() -> list[str]:
    """The kinds of artifacts that a recipe has one of, upstream first."""
    return [stage.kind for stage in stages() if stage.axes == ("recipe",)]


def _waiting(present: FactoryConfig, name: str) -> Recipe:
    try:
        return present.recipe(name)
    except ConfigError as error:
        raise NotReproducibleError(f"The report names a recipe that waited then: {error}") from None


def _recipe(present: FactoryConfig, recorded: _Recorded, top: Manifest) -> Recipe:
    """The recipe of an artifact, read from it down to its sheared captions."""
    chain = {top.kind: top}
    for kind in reversed(_recipe_kinds()):
        for each in list(chain.values()):
            chain |= {found.kind: found for found in recorded.inputs(each, kind)}
    sheared, merged, trained = (chain.get(kind) for kind in ("sheared_captions", "training_set", "checkpoint"))
    measured, tuned = chain.get("retrieval_metrics"), chain.get("finetuned_checkpoint")
    name = name_of(top)
    like = _present_recipe(present, name)
    if sheared is None:
        return like
    update: dict[str, Any] = {
        "name": name,
        "base": name_of(sheared),
        "seed": trained.configuration["seed"] if trained else 0,
        "captioners": tuple(sheared.configuration["captioners"]),
        "shear": sheared.configuration["shear"],
        "mix": MixSettings.model_validate(merged.configuration["mix"]) if merged else MixSettings(),
        "filters": _filters(present, merged.configuration["filters"]) if merged else (),
        "trainer": rebuilt_trainer(present, like.trainer, trained) if trained else like.trainer,
        "evaluation_sets": tuple(_evaluated(present, recorded, measured or top)),
        "finetune": None,
    }
    if tuned is not None:
        (target,) = recorded.inputs(tuned, "target_set")
        first = like.finetune.trainer if like.finetune else like.trainer
        trainer = rebuilt_trainer(present, first, tuned)
        update["finetune"] = Finetuning(target_set=name_of(target), trainer=trainer)
    return like.model_copy(update=update)


def _evaluated(present: FactoryConfig, recorded: _Recorded, made: Manifest) -> list[str]:
    """The evaluation sets that an artifact was made from, and those whose images it leaves out, as far as there."""
    sets = [name_of(each) for each in recorded.inputs(made) if load_stage(each.kind).axes == ("evaluation_set",)]
    asked = made.summary["duplicates"]["artifacts"] if "excluded_images" in made.configuration else ()
    leaks = (address.split("/")[1] for address in asked if address.startswith("leakage/"))
    return [*sets, *(name for name in leaks if name in present.evaluation_sets)]


def _present_recipe(present: FactoryConfig, name: str) -> Recipe:
    """The YAML's recipe of that name, else its first: what no manifest records comes from there."""
    recipes = present.expanded_recipes()
    return next((recipe for recipe in recipes if recipe.name == name), recipes[0])


def _filters(present: FactoryConfig, recorded: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    known = [step for recipe in present.expanded_recipes() for step in recipe.filters]
    found = []
    for identity in recorded:
        step = next((step for step in known if step.identity() == identity), None)
        if step is None and "scorer" in identity:
            raise NotReproducibleError(
                f"The filter {identity['filter']} scored with a model that no recipe of the YAML names any more (or "
                "whose files have changed): name it in a recipe's filters."
            )
        found.append(_FILTER.validate_python(identity) if step is None else step)
    return tuple(found)


def rebuilt_trainer(present: FactoryConfig, like: TrainerSettings | None, trained: Manifest) -> TrainerSettings:
    """The trainer of a checkpoint, with the device and workers of a present one (`like`, where it is of its kind).

    Raises `NotReproducibleError` when no file at hand has the recorded architecture or weights.
    """
    wanted = trained.configuration["trainer"]
    known = [*([like] if like is not None else []), *present.trainers.values()]
    for each in known:
        if trainer_identity(each) == wanted:
            return each
    base = next((each for each in known if each.kind == wanted.get("kind")), None)
    for files in _files(known, wanted):
        try:
            trainer: TrainerSettings = _TRAINER.validate_python(
                {**(base.model_dump(mode="json") if base else {}), **wanted, **files}
            )
        except ValidationError:
            continue  # a file of another kind of trainer
        if trainer_identity(trainer) == wanted:
            return trainer
    raise NotReproducibleError(
        f"{trained.address}: no trainer of the YAML has the architecture or weights that it was trained with (model "
        f"{wanted.get('model')}, pretrained {wanted.get('pretrained')}); name the file in a trainer, as it was."
    )


def _files(known: list[TrainerSettings], wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every model and weights that could be the recorded ones: a name is one already, a content may be any file's."""
    models = [wanted["model"]]
    if str(wanted["model"]).startswith(_CONTENT):
        models = [*(trainer.model for trainer in known), *(file.stem for file in sorted(_ARCHITECTURES.glob("*.json")))]
    weights = [wanted["pretrained"]]
    if str(wanted["pretrained"]).startswith(_CONTENT):
        weights = [trainer.pretrained for trainer in known]
    for model in dict.fromkeys(models):
        for pretrained in dict.fromkeys(weights):
            yield {"model": model, "pretrained": pretrained}
