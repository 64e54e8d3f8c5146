"""The configuration that an artifact was made with, put together from its manifest and those of what it was made from.

What no manifest records decides only where and how fast work runs (batch sizes, devices, folders of the pictures): that
is taken from the present YAML, or left at its default.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.settings import Captioner, PromptedSettings
from caploom.config.factory_config import FactoryConfig
from caploom.config.recipes import Finetuning, Recipe
from caploom.errors import ConfigError
from caploom.evaluation.settings import EvaluationSet
from caploom.readers.picture_book import PictureBookReader
from caploom.readers.registry import Reader
from caploom.reproduce.errors import NotReproducibleError
from caploom.reproduce.fresh_store import name_of
from caploom.reproduce.rebuild_trainer import rebuilt_trainer
from caploom.reproduce.words import printable
from caploom.shearing.settings import ShearStep
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact
from caploom.training_set.filter_settings import FilterStep
from caploom.training_set.settings import MixSettings

SHEAR = "reproduced"
"""What a shear is called where no manifest names it."""

_RECIPE_KINDS = ("sheared_captions", "training_set", "checkpoint", "finetuned_checkpoint", "retrieval_metrics")
_CAPTIONER: TypeAdapter[Any] = TypeAdapter(Captioner)
_EVALUATION_SET: TypeAdapter[Any] = TypeAdapter(EvaluationSet)
_READER: TypeAdapter[Any] = TypeAdapter(Reader)
_FILTER: TypeAdapter[Any] = TypeAdapter(FilterStep)


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
        if present.pairs is None or "reader" not in listing.configuration:
            continue  # an inbox has no reader of its own
        values["pairs"] = _reader(present.pairs, listing.configuration["reader"], _READER, "pairs", scratch)
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

    def inputs(self, manifest: Manifest, kind: str) -> list[Manifest]:
        """The inputs of a kind, in their order."""
        known = (self._by_address.get(record.address) for record in manifest.inputs)
        return [each for each in known if each is not None and each.kind == kind]


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
    """A reader's recorded settings over the present ones; an older manifest has none, and the present ones stand."""
    if recorded is None and present is None:
        raise NotReproducibleError(f"{where}: the YAML has it no more, and no manifest says what it was.")
    if recorded is None:
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
    manifest = recorded.manifest
    if manifest.kind == "ablation_report":
        waiting = manifest.configuration["waiting"]
        own: dict[str, Manifest] = {}
        for each in recorded.inputs(manifest, "retrieval_metrics"):
            own.setdefault(name_of(each), each)  # those of earlier versions of its data stand after it
        measured = [_recipe(present, recorded, each) for name, each in own.items() if name not in waiting]
        return [*measured, *(_waiting(present, name) for name in waiting)]
    return [_recipe(present, recorded, manifest)] if manifest.kind in _RECIPE_KINDS else []


def _waiting(present: FactoryConfig, name: str) -> Recipe:
    try:
        return present.recipe(name)
    except ConfigError as error:
        raise NotReproducibleError(f"The report names a recipe that waited then: {error}") from None


def _recipe(present: FactoryConfig, recorded: _Recorded, top: Manifest) -> Recipe:
    """The recipe of an artifact, read from it down to its sheared captions."""
    chain = {top.kind: top}
    for kind in reversed(_RECIPE_KINDS):
        for each in list(chain.values()):
            chain |= {found.kind: found for found in recorded.inputs(each, kind)}
    sheared, merged, trained = (chain.get(kind) for kind in ("sheared_captions", "training_set", "checkpoint"))
    measured, tuned = chain.get("retrieval_metrics"), chain.get("finetuned_checkpoint")
    if sheared is None:
        raise NotReproducibleError(f"{top.address}: its inputs do not lead back to sheared captions.")
    name = name_of(next(each for each in (measured, tuned, trained, merged, sheared) if each is not None))
    like = _present_recipe(present, name)
    update: dict[str, Any] = {
        "name": name,
        "base": name_of(sheared),
        "seed": trained.configuration["seed"] if trained else 0,
        "captioners": tuple(sheared.configuration["captioners"]),
        "shear": sheared.configuration["shear"],
        "mix": MixSettings.model_validate(merged.configuration["mix"]) if merged else MixSettings(),
        "filters": _filters(present, merged.configuration["filters"]) if merged else (),
        "trainer": rebuilt_trainer(present, like.trainer, trained) if trained else like.trainer,
        "evaluation_sets": tuple(measured.configuration["evaluation_sets"]) if measured else (),
        "finetune": None,
    }
    if tuned is not None:
        (target,) = recorded.inputs(tuned, "target_set")
        first = like.finetune.trainer if like.finetune else like.trainer
        trainer = rebuilt_trainer(present, first, tuned)
        update["finetune"] = Finetuning(target_set=name_of(target), trainer=trainer)
    return like.model_copy(update=update)


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
