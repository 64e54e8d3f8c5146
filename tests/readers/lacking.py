"""Which rows are bad only where a caption is needed."""


def lacks_only_a_caption(reason, words):
    """Whether a row with this reason, and a sentence with these words, still says where its image is."""
    return reason in ("no_caption", "empty_caption") or (reason == "caption_not_text" and words.endswith("missing"))
