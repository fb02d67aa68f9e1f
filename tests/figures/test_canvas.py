from fieldguide.figures.canvas import short


def test_names_are_cut_to_what_fits():
    assert short("a" * 28) == "a" * 28
    assert short("a" * 29) == "a" * 27 + "…"


def test_characters_that_the_font_has_not_are_told_apart():
    assert short("Vögel groß") == "Vögel groß"
    assert short("貓 cat") == "U+8C93  cat"
    assert short("狗") == "U+72D7"
