"""Opens a store in a local folder or at a URL."""

from pathlib import Path

from caploom.errors import StoreError
from caploom.storage.paths import is_url
from caploom.storage.store import Store


def open_store(root: Path | str, *, run_id: str | None = None) -> Store:
    """The store in a folder, created when missing, or at a URL; raises `StoreError` when that fails.

    Example:
        >>> store = open_store(factory.store.root)
        >>> [artifact.data_version for artifact in store.list("training_set", "sheared")]
        ['2f7c1d0a9b3e4c55']
    """
    if is_url(str(root)):
        from caploom.storage.object_store import ObjectStore  # needs fsspec, which local stores do without

        return ObjectStore.at(str(root), run_id=run_id)
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{root}: the store's folder cannot be created ({error.strerror}); change `store`.") from None
    return Store(Path(root), run_id=run_id)
