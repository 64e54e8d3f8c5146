"""Everything that a store knows about one image: its captions, their shears, their training sets, its ranks."""

from caploom.catalog.catalog import open_catalog
from caploom.images.moves import STAYED, Moves
from caploom.questions.trace.captions import traced_captions, traced_pairs
from caploom.questions.trace.context import TraceContext
from caploom.questions.trace.find import ImageFinder, failures_of_path
from caploom.questions.trace.ranks import evaluated_images, traced_ranks
from caploom.questions.trace.records import ImageTrace
from caploom.questions.trace.sets import traced_training_sets
from caploom.storage.store import Store


def trace_image(store: Store, text: str, *, moves: Moves = STAYED) -> ImageTrace:
    """Everything about the image that `text` names: an identity or the beginning of one, a path, or a file on disk.

    `moves` says where images are now. Raises `StoreError` when the store has no such image, or several.

    Example:
        >>> trace = trace_image(factory.store, "0003.png")
        >>> [pair.caption for pair in trace.pairs]
        ['photo 3', 'photo 3, again']
    """
    with open_catalog(store) as catalog:
        found = ImageFinder(store, catalog).find(text)
        if found.image_id is None:
            failures = failures_of_path(store, catalog, [text])
            return ImageTrace(None, text, "", failures=tuple(failures), notes=found.notes)
        context = TraceContext(store, catalog, found.image_id)
        pairs = traced_pairs(context)
        captions, failures = traced_captions(context, pairs)
        sets = traced_training_sets(context, pairs, captions)
        evaluated = evaluated_images(context)
        ranks = traced_ranks(context, evaluated)
        names = list(dict.fromkeys([*(pair.image for pair in pairs), *(each.image for each in evaluated)]))
        refused = failures_of_path(store, catalog, names) if names else []
        damaged = context.damaged()
    paths = [*(pair.path for pair in pairs), *(each.path for each in evaluated)]
    return ImageTrace(
        image_id=found.image_id,
        image=names[0] if names else "",
        path=moves.present(paths[0]) if paths else found.path,
        pairs=tuple(pairs),
        captions=tuple(captions),
        training_sets=tuple(sets),
        evaluation_sets=tuple(each.name for each in evaluated),
        ranks=tuple(ranks),
        failures=(*refused, *failures),
        notes=(*found.notes, *context.notes, *damaged),
    )
