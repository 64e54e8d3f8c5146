"""Texts that break rules: fixed ones, and a strategy for many more."""

from hypothesis import strategies as st

NASTY = [
    "",
    " \n\t",
    "\u00a0\u3000",
    "a",
    ".",
    "?!",
    "...",
    ". . . .",
    "🐶",
    "🐶🐶 🐶.",
    "\u202eabc def. ghi",
    "שלום עולם. זה כלב. זה חתול.",
    "NaN",
    "null",
    "<b>x</b> <i>y. Z</i>",
    "Fish &amp; chips &lt;b&gt; here &amp;amp; there. More",
    "a\nb",
    "\ta. b",
    "\x00\x01 \x02. \x7f A\x1b[31m red b",
    "a\x1cb \x1d c. D",
    "\ud800 a \udc00. B c d e",
    "Ã©tÃ© Ã  la plage â€œoui\u00e2\u20ac\u009d. Non non non",
    "Â  Â  Â  Â  a",
    "ΌΔΟΣ ΣΑΣ. ΣΑΣ",
    "e\u0301 \u0301e. \u0301",
    "ﬁne ＡＢＣ ＆amp; ｘ。ｙ",
    "a\u00a0b\u2003c d\u3000e. F",
    "x" * 5000,
    "st. " * 500,
    "the image shows " * 200,
]

PIECES = [
    *("a", "The", "dog", "U.S.", "St.", "etc.", "J.", "3", "5", "Army", "m", "e.g.", "p.m.", "Mr", "I", "A"),
    *(".", ".", ".", "...", "…", "!", "?", "。", "؟", "।", ",", ":", '"', "”", "“", "’", "'", "(", ")", "[", "]"),
    *(" ", " ", " ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x1c", "\x0b"),
    *("é", "É", "Ã©", "Ã ", "â€™", "猫", "🐶", "&amp;", "&", "\x01", "\ufeff", "＆", "Œ", "Σ"),
    *("The image shows", "in this picture", "we can see", "a photo of", "and a cat", "and a cat"),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=24).map("".join),
    st.text(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=24).map(" ".join),
)
"""Any text, usually with characters that rules react to."""
