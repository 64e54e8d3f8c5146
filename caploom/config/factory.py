"""A factory: its configuration and its store, opened together. Every stage is a function that takes one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from caploom.config.factory_config import FactoryConfig, load_config
from caploom.storage.opening import open_store
from caploom.storage.store import Store


@dataclass(frozen=True)
class Factory:
    """The configuration and the store that every stage works on.

    Example:
        >>> factory = Factory.from_yaml(Path("my.yaml"))
        >>> [recipe.name for recipe in factory.config.expanded_recipes()]
        ['raw-only', 'sheared']
    """

    config: FactoryConfig
    store: Store

    @classmethod
    def from_yaml(cls, path: Path | str, *, seeds: list[int] | None = None, run_id: str | None = None) -> Self:
        """The factory that a YAML file describes; raises `ConfigError` or `StoreError`."""
        return cls.from_config(load_config(Path(path), seeds=seeds), run_id=run_id)

    @classmethod
    def from_config(cls, config: FactoryConfig, *, run_id: str | None = None) -> Self:
        """The factory of a configuration; raises `StoreError` when its folder cannot be created."""
        return cls(config, open_store(config.store, run_id=run_id))
