"""What each rule keeps of a text: (rule as the YAML has it, text, what is kept). The table of docs/shearing.md."""

EXAMPLES = [
    ("first_sentence", "A dog runs. It is happy.", "A dog runs."),
    ("first_sentence", "A view of St. Peter's Square in Rome. It is big.", "A view of St. Peter's Square in Rome."),
    ("first_sentence", "The U.S. Army parades. It rains.", "The U.S. Army parades."),
    ("first_sentence", "They live in the U.S. The house is red.", "They live in the U.S."),
    ("first_sentence", "A wall 3.5 metres high. It is old.", "A wall 3.5 metres high."),
    ("first_sentence", "Mr. Smith and Dr. J. Jones talk. They sit.", "Mr. Smith and Dr. J. Jones talk."),
    ("first_sentence", "A cat ... and a dog sit. They rest.", "A cat ... and a dog sit."),
    ("first_sentence", 'He shouts "Stop!" and runs. It is late.', 'He shouts "Stop!" and runs.'),
    ("first_sentence", "A title\nand its text. More.", "A title"),
    ("first_sentence", "一只狗在跑。它很高兴。", "一只狗在跑。"),
    ("sentences: 2", "A dog runs. It is happy. The sun shines.", "A dog runs. It is happy."),
    ("random_sentence", "A dog runs. It is happy. The sun shines.", "The sun shines."),
    ("max_words: 4", "A small dog runs over the grass.", "A small dog runs"),
    ("max_tokens: 6", "A hippopotamus yawns widely.", "A hippopotamus yawns"),
    ("match_raw", "A small dog runs over the grass.", "A small dog runs"),
    ("match_corpus", "A small dog runs over the grass.", "A small dog runs over"),
    ("strip_boilerplate", "The image shows a dog on the grass.", "a dog on the grass."),
    ("strip_boilerplate", "In this picture, we can see two cats.", "two cats."),
    ("drop_repeats", "A dog and a cat and a cat and a cat and", "A dog and a cat"),
    ("none", "A dog runs. It is happy.", "A dog runs. It is happy."),
    ("paper_release", "A view of St. Peter's Square in Rome. It is big.", "A view of St"),
]
RAW_WORDS = 4
"""Words of the raw caption in the examples of `match_raw`."""
CORPUS_WORDS = 5
"""Words of raw captions in general in the example of `match_corpus`."""
