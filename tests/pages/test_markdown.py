"""Text of strangers in Markdown, rendered by a real parser."""

import random
import re

import pytest
from markdown_it import MarkdownIt

from fieldguide.pages.markdown import escape, folded, join, table

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = [
    "http://x.y HTTPS://x.y www.x.y WWW.x.y a@x.y mailto:a@x.y ftp://x",
    "<script>alert(1)</script><!-- x --><img src=x onerror=a>",
    "**bold** *em* __strong__ _em_ ___both___ ~~gone~~ `code`",
    "[a](http://x.y) ![b](c.png) <http://x.y> [a]: b [^1]",
    '@all @_x owner/repo#1 #1 GH-1 gh-2 !1 ~label ~"a b" %1 %"a" $1 &1 :bee: :+1:',
    "a | b \\| c \\\\| d",
    "&lt;b&gt; &#64;all &amp;",
    "$x$ $$y$$ {+ a +} \\",
    "# a",
    "- a",
    "-",
    "--- ",
    "+ a",
    "===",
    "1. a",
    "2)",
    "> a",
    "```a",
    "~~~",
    ":--",
    "- [ ] a",
    "    indented",
    "one\n\ntwo\n# three",
    "a  \nb\\\nc",
]
# Where text is placed.
PLACES = ["{}", "# {}", "- {}", "> {}", "a\n{}", "*{}*", "| a | b |\n| --- | --- |\n| {} | c |"]


def texts(source):
    """The text of each block, and everything else that the parser found in it."""
    blocks, elements = [], []
    for token in PARSER.parse(source):
        if token.type != "inline":
            elements.append(token.type)
            continue
        blocks.append("".join(child.content or " " for child in token.children))
        elements += [child.type for child in token.children if child.type != "text"]
    return blocks, elements


def check(text):
    shown = escape(text)
    assert "\n" not in shown
    for place in PLACES:
        expected = texts(place.format("x"))
        blocks, elements = texts(place.format(shown))
        assert elements == expected[1], (place, shown)
        plain = [block.replace("\u200b", "").replace("  ", " ") for block in blocks]
        line = " ".join(text.split())
        wanted = [block.replace("x", line) for block in expected[0]]
        assert plain == [block.replace("  ", " ") for block in wanted], (place, shown)
    # What GitHub and GitLab look for besides: bare addresses in the source, the rest in the result.
    rendered = PARSER.renderInline(shown)
    assert "://" not in rendered
    assert not re.search(r"www\.", shown, re.IGNORECASE)
    assert not re.search(r"@\w|[#!%~]\w|\bGH-\d|:[\w+-]+:", rendered, re.IGNORECASE)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_strangers_text_is_only_text(text):
    check(text)


def test_random_markup_is_only_text():
    draw = random.Random(0)
    pieces = [*"\\`*_[](){}<>|~&$#!@:;=+-./'\" ab1\n", "www.", "http://", "GH-", "&lt;", "é", "```"]
    for _ in range(3000):
        text = "".join(draw.choices(pieces, k=draw.randrange(1, 12)))
        if text.strip():
            check(text)


def test_ordinary_names_stay_as_they_are():
    names = ["crab", "a-b c.d", "filters_conv1.png", "Ixodes ricinus (L.)", "0.712", "-0.5", "50%"]
    assert [escape(name) for name in names] == names


def test_control_characters_are_shown_as_such():
    assert escape("a\x1b[2Jb\u202ec") == "a\ufffd\\[2Jb\ufffdc"


def test_blocks():
    shown = table(["name", ""], [[escape("a|b"), "1"]], align="lr")
    assert shown == "| name |  |\n| :-- | --: |\n| a\\|b | 1 |"
    rendered = PARSER.render(join("", "text", shown))
    assert rendered.count("<p>text</p>") == 1
    assert ">a|b</td>" in rendered
    assert PARSER.render(folded("more", shown)).count("<td") == 2
