"""`caploom.Factory`: a factory as a notebook or a script uses it.

It is the `Factory` that every function of the library takes, with what people ask for most as methods: tables,
pictures, the reasons of a number, a try, a run. Each call reads the store as it is then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Self

from caploom.common.settings import nearest
from caploom.config import factory as config_factory
from caploom.config.factory_config import load_config
from caploom.errors import CaploomError, ConfigError, MissingArtifactError
from caploom.stages.graph import Graph
from caploom.stages.stage import Ref

# What answers is imported when it is asked, as commands do it: opening a factory waits for nothing else.
if TYPE_CHECKING:
    import pyarrow as pa

    from caploom.notebook.gallery import Gallery
    from caploom.questions.why.why_metric import Why
    from caploom.storage.store import Artifact
    from caploom.tries.tried import CaptionerTry

RUNNER = "caploom.runner"
"""The group of entry points with what runs a factory: Dagster's side, which the library does not know."""


@dataclass(frozen=True, repr=False)
class Factory(config_factory.Factory):
    """A factory: its YAML and its store.

    Tables are `pyarrow.Table`s (`.to_pandas()` makes data frames), with the rows of all shards that are made so far; a
    `shard` narrows them to one, `columns` to some columns, `limit` to the first rows.

    Example:
        >>> import caploom
        >>> factory = caploom.Factory.from_yaml("my.yaml")
        >>> factory
        <Factory test: captioners colours; recipes raw-only, sheared>
        >>> factory.captions("colours", limit=1).to_pandas()["text"][0]
        'A red square. It is said to hide a dragon.'
    """

    path: Path | None = None
    seeds: tuple[int, ...] | None = None

    @classmethod
    def from_yaml(cls, path: Path | str, *, seeds: list[int] | None = None, run_id: str | None = None) -> Self:
        """The factory that a YAML file describes; raises `ConfigError` or `StoreError`."""
        path = Path(path).expanduser().absolute()
        opened = cls.from_config(load_config(path, seeds=seeds), run_id=run_id)
        return cls(opened.config, opened.store, path, tuple(seeds) if seeds is not None else None)

    def __repr__(self) -> str:
        captioners = ", ".join(self.config.captioners) or "none"
        return f"<Factory {self.config.name}: captioners {captioners}; recipes {', '.join(self.recipes)}>"

    @property
    def shards(self) -> list[str]:
        """The names of the shards that the source is cut into so far."""
        return Graph(self).shards

    @property
    def recipes(self) -> list[str]:
        """The names of the recipes, one a seed."""
        return [recipe.name for recipe in self.config.expanded_recipes()]

    def pairs(
        self, shard: str | None = None, *, columns: Sequence[str] | None = None, limit: int | None = None
    ) -> "pa.Table":
        """The ingested pairs (schema PAIRS); `raw_caption` is "" for an image that came without one.

        Raises `MissingArtifactError` when no shard, or not this one, is ingested.

        Example:
            >>> factory.pairs(columns=["image", "raw_caption"], limit=3).to_pydict()["image"]
            ['0000.png', '0001.png', '0002.png']
        """
        from caploom.notebook.tables import read_files
        from caploom.storage.records import PAIRS

        refs = [Ref("raw_pairs", (each,)) for each in self._shards(shard)]
        found = self._made(refs, "The pairs", shard, "raw_pairs")
        return read_files((each.file("pairs.parquet") for each in found), PAIRS, columns, limit)

    def captions(
        self,
        captioner: str,
        shard: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> "pa.Table":
        """What a captioner said of the images (schema CAPTIONS), whole: before any shear; one row an image of a shard.

        Raises `ConfigError` for an unknown captioner, and `MissingArtifactError` when it has finished no shard, or not
        this one. What a try alone has made is in what `try_captioner` gives.

        Example:
            >>> table = factory.captions("colours", columns=["image_id", "text"])
            >>> table.num_rows, table.slice(1, 1)["text"].to_pylist()
            (15, ['A green square. It is said to hide a dragon.'])
        """
        from caploom.notebook.tables import read_files
        from caploom.stages.captions import captioner_settings
        from caploom.storage.records import CAPTIONS

        captioner_settings(Graph(self), captioner)
        refs = [Ref("captions", (captioner, each)) for each in self._shards(shard)]
        found = self._made(refs, f"The captions of {captioner}", shard, "captions")
        return read_files((each.file("captions.parquet") for each in found), CAPTIONS, columns, limit)

    def sheared(
        self,
        captioner: str,
        shear: str,
        shard: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> "pa.Table":
        """What a shear keeps of a captioner's captions (schema SHEARED).

        Raises `ConfigError` for an unknown captioner or shear, and `MissingArtifactError` when the captions of no
        shard, or not of this one, are sheared so.

        Example:
            >>> factory.sheared("colours", "first", columns=["caption", "words"], limit=1).to_pylist()
            [{'caption': 'A red square.', 'words': 3}]
        """
        from caploom.notebook.tables import read_files
        from caploom.stages.captions import captioner_settings
        from caploom.storage.records import SHEARED

        captioner_settings(Graph(self), captioner)
        known = ["none", *self.config.shears]
        if shear not in known:
            raise ConfigError(f'There is no shear "{shear}"; known: {", ".join(known)}{nearest(shear, known)}.')
        refs = [Ref("sheared", (captioner, shear, each)) for each in self._shards(shard)]
        found = self._made(refs, f"The captions of {captioner} by the shear {shear}", shard, "sheared")
        return read_files((each.file("sheared.parquet") for each in found), SHEARED, columns, limit)

    def training_set(
        self, recipe: str, *, columns: Sequence[str] | None = None, limit: int | None = None
    ) -> "pa.Table":
        """A recipe's training set (schema TRAINING_ROWS): an image's captions, their sources and weights, in its order.

        Raises `ConfigError` for an unknown recipe, and `MissingArtifactError` when the set is not made for the present
        YAML and data.

        Example:
            >>> factory.training_set("sheared").column_names
            ['image_id', 'image', 'path', 'captions', 'sources', 'weights']
        """
        from caploom.notebook.tables import read_files
        from caploom.storage.records import TRAINING_ROWS
        from caploom.training_set.write import training_files

        return read_files(training_files(self._training_set(recipe)), TRAINING_ROWS, columns, limit)

    def metrics(self) -> "pa.Table":
        """The latest measurements of the recipes, one row a recipe, evaluation set, stage and scoring.

        Recalls are shares, 0 to 1 (`r1_i2t`: Recall@1 from images to texts). Raises `MissingArtifactError` when no
        recipe is measured, and says so where the YAML has none that could be.

        Example:
            >>> factory.metrics().select(["recipe", "r1_i2t"]).to_pylist()
            [{'recipe': 'raw-only', 'r1_i2t': 0.5}, {'recipe': 'sheared', 'r1_i2t': 1.0}]
        """
        from caploom.notebook.tables import metrics_table
        from caploom.questions.results.latest_results import latest_results

        if not any(recipe.is_measured for recipe in self.config.expanded_recipes()):
            raise MissingArtifactError(
                f"{self.config.name} measures nothing: its YAML has no recipe with a trainer and an evaluation set; "
                "write both to have metrics."
            )
        table = metrics_table(latest_results(self))
        if not len(table):
            raise MissingArtifactError(
                f"No recipe of {self.config.name} is measured yet; `factory.run()` or `caploom run` does it."
            )
        return table

    def gallery(self, count: int = 5, *, shard: str | None = None, recipe: str | None = None) -> "Gallery":
        """The first pictures with all their captions: of a shard (by default the first), or of a recipe's training set.

        A notebook shows a table of pictures; printed, it is text. Raises `MissingArtifactError` when there is nothing
        to show yet.

        Example:
            >>> factory.gallery(count=2, shard="shard-00001")
            /.../images/0010.png
              raw: photo 10
              colours: A blue square. It is said to hide a dragon.
            /.../images/0011.png
              raw: photo 11
              colours: A white square. It is said to hide a dragon.
        """
        from caploom.notebook.gallery import Gallery
        from caploom.questions.gallery_rows import shard_gallery, training_gallery

        if count < 1:
            raise ConfigError(f"count is {count}; show at least one picture.")
        if recipe is not None:
            return Gallery(tuple(training_gallery(self._training_set(recipe), count)))
        refs = [Ref("raw_pairs", (each,)) for each in self._shards(shard)]
        first = self._made(refs, "The pairs", shard, "raw_pairs")[0].manifest.configuration["shard"]
        return Gallery(tuple(shard_gallery(self, first, list(self.config.captioners), count)))

    def why(self, recipe: str, metric: str = "mean_r1", *, evaluation_set: str | None = None) -> "Why":
        """What a recipe's number is based on: rivals, training, training set, and the sources of its captions.

        Raises `ConfigError` for a recipe that is not measured and for an unknown metric or set, with the nearest names.

        Example:
            >>> why = factory.why("sheared", "r1_i2t")
            >>> why.figures[0].value, [source.source for source in why.training_set.sources]
            (1.0, ['raw', 'colours'])
        """
        from caploom.questions.why.why_metric import why_metric

        return why_metric(self.store, recipe, metric, evaluation_set=evaluation_set)

    def try_captioner(self, captioner: str, images: int = 8) -> "CaptionerTry":
        """Have a captioner caption the first images, as `caploom try` does; a run does not ask for these again.

        A notebook shows the pictures with the texts, and what the recipes' shears keep of them. Raises what
        `caploom.tries.try_captioner.try_captioner` raises.

        Example:
            >>> factory.try_captioner("colours", images=1)
            colours (demo:tiny-llava) on the first 1 image of shard-00000: 0 asked about now, 1 kept from before.
            <BLANKLINE>
            0000.png
              A red square. It is said to hide a dragon.
              first keeps: A red square.
              first cuts off: It is said to hide a dragon.
        """
        from caploom.common.progress import track
        from caploom.tries.try_captioner import try_captioner

        with track(f"captions/{captioner}", "images") as bar:
            return try_captioner(self, captioner, images, progress=bar.part())

    def run(self, until: str | None = None) -> None:
        """Run the factory as `caploom run` does; `until` names the last step: "captions", "training_set", ...

        Finished work is kept, and the UI has the runs. Raises `ConfigError` for an unknown step and for a factory that
        was made without a YAML file, and `CaploomError` with what failed, once everything else is done.
        """
        if self.path is None:
            raise ConfigError("A run reads the YAML file, and this factory has none; open it with Factory.from_yaml.")
        runners = list(entry_points(group=RUNNER))
        if not runners:
            raise CaploomError(
                f"Nothing here runs a factory: no installed package has the entry point {RUNNER}; install Caploom "
                "again (`make venv`, or pip)."
            )
        run = runners[0].load()
        failures: list[str] = run(self.path, seeds=list(self.seeds) if self.seeds is not None else None, until=until)
        if failures:
            raise CaploomError("The run is over, and not all of it succeeded:\n" + "\n".join(failures))

    def _shards(self, shard: str | None) -> list[str]:
        """That shard, or all; raises `ConfigError` when there is no such one."""
        known = self.shards
        if shard is None:
            return known
        if shard not in known:
            raise ConfigError(f'There is no shard "{shard}"; there are {len(known)}{nearest(shard, known)}.')
        return [shard]

    def _made(self, refs: Iterable[Ref], what: str, shard: str | None, step: str) -> "list[Artifact]":
        found = Graph(self).existing(refs)
        if not found:
            where = "any shard" if shard is None else shard
            raise MissingArtifactError(
                f'{what} are not made for {where} yet; `factory.run("{step}")` or `caploom run` makes them.'
            )
        return found

    def _training_set(self, recipe: str) -> "Artifact":
        graph = Graph(self)
        graph.recipe(recipe)
        found = graph.find(Ref("training_set", (recipe,)))
        if found is None:
            raise MissingArtifactError(
                f"The training set of {recipe} is not made for the present YAML and data yet; "
                '`factory.run("training_set")` or `caploom run` makes it.'
            )
        return found
