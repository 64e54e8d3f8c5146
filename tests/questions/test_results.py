from rich.cells import cell_len

from caploom.questions.results.latest_results import latest_results
from caploom.questions.results.results import ResultRow, verdict
from caploom.questions.results.tables import markdown_table, recall_table, short_recall_table
from caploom.questions.results.terminal import fitting, results_text


def row(recipe, recall, seeds=(0,), spread=None):
    places = [f"{direction}@{k}" for direction in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    recalls, chances = dict.fromkeys(places, recall), dict.fromkeys(places, 0.01)
    return ResultRow("scenes", recipe, seeds, recalls, chances, recall, 0.01, spread)


def test_the_verdict_names_winner_margin_and_chance():
    rows = [row("raw-only", 0.05), row("one", 0.1), row("four", 0.2)]
    assert verdict(rows) == (
        "four wins with a mean Recall@1 of 20.0 %, 20.0 times chance; 10.0 points ahead of one "
        "and 15.0 points ahead of raw-only (1 seed)."
    )


def test_a_single_recipe_has_nothing_to_beat():
    assert verdict([row("raw-only", 0.05)]).endswith("there is no other recipe to compare it with.")


def test_nothing_is_called_a_win_at_or_below_chance():
    assert verdict([row("raw-only", 0.01), row("one", 0.005)]).startswith("No recipe is above chance")


def test_the_table_shows_recall_chance_and_spread():
    table = recall_table([row("four", 0.123, seeds=(0, 1, 2), spread=0.011)])
    assert table[1] == ["four", "3", *["12.3"] * 6, "12.3 ± 1.1", "12.3"]
    assert table[2] == ["(chance)", "", *["1.0"] * 6, "1.0", "1.0"]
    assert len(set(map(len, markdown_table(table).splitlines()))) == 1


def test_tables_fit_the_terminal():
    rows = [row("raw-only", 0.05), row("four-captioners-and-a-long-name", 0.123, seeds=(0, 1), spread=0.011)]
    wide, narrow = recall_table(rows), short_recall_table(rows)
    assert fitting([wide, narrow], 140) == markdown_table(wide)
    assert fitting([wide, narrow], 80) == markdown_table(narrow)
    assert narrow[2] == ["four-captioners-and-a-long-name", "12.3 ± 1.1", "12.3", "12.3", "12.3"]
    folded = fitting([wide, narrow], 60)
    assert max(map(len, folded.splitlines())) <= 60
    assert "12.3 ± 1.1" in folded
    assert "".join(line.split("|")[1].strip() for line in folded.splitlines()[3:-1]) == narrow[2][0]


def test_odd_names_are_printed_as_they_are_and_columns_line_up():
    names = ["a__b__.c-d_", "X_1.5", "0"]
    rows = [row(name, 0.05) for name in names]
    for width in (200, 60):
        text = fitting([recall_table(rows), short_recall_table(rows)], width)
        assert "\\" not in text
        assert all(any(name in line for line in text.splitlines()) for name in names)
        assert len({cell_len(line) for line in text.splitlines()}) == 1
    wide = markdown_table([["caption"], ["红色的"], ["🐈|"], ["a"]])
    assert len({cell_len(line) for line in wide.splitlines()}) == 1


def test_what_a_run_prints_of_its_results_is_no_escaped_markdown(asked):
    text = results_text(latest_results(asked), width=120, best_first=True)
    assert "\\" not in text
    assert "&" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 5  # a header, a rule, two recipes and chance
    assert len({cell_len(line) for line in lines}) == 1
