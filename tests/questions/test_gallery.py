from small_factory import picture

from caploom.common.text import markdown_text
from caploom.questions.gallery import GalleryRow, gallery_markdown


def test_markup_in_a_caption_is_shown_and_never_run(tmp_path):
    picture(1).save(tmp_path / "a.png")
    evil = "<script>alert(1)</script> | [x](javascript:alert(1)) **bold**\nnew row"
    rows = [GalleryRow(str(tmp_path / "a.png"), (("raw", evil), ("llava", "fine")))]
    markdown = gallery_markdown(rows)
    assert "<script>" not in markdown
    assert "[x](javascript:" not in markdown
    assert len(markdown.splitlines()) == 3
    assert markdown.splitlines()[2].replace("\\|", "").count("|") == 4


def test_an_image_that_is_gone_is_said(tmp_path):
    assert "(gone)" in gallery_markdown([GalleryRow(str(tmp_path / "none.png"), (("raw", "x"),))])


def test_plain_text_stays_plain():
    assert markdown_text("A dog, two cats.") == "A dog, two cats."
