"""Class names in figures."""

from fieldguide.figures.canvas import short


def test_names_are_cut_to_what_fits():
    assert short("a" * 28) == "a" * 28
    assert short("a" * 29) == "a" * 27 + "…"
    assert short("a" * 20, 19) == "a" * 18 + "…"


def test_characters_that_the_font_lacks_become_code_points():
    assert short("Vögel groß") == "Vögel groß"
    assert short("貓 cat") == "U+8C93  cat"
    assert short("狗") == "U+72D7"
