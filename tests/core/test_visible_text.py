"""What strangers wrote reaches a terminal as letters only."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from medvol.core.visible_text import is_blank, show
from medvol.terminal.console import Console

STEERING = [
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\r",
    "\b",
    "\x00",
    "\x7f",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u2028",
    "\ufeff",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("caf\udce9", "caf\\udce9"),
        ("\ud800", "\\ud800"),
        ("脾臓 [b] é", "脾臓 [b] é"),
        ("a\u200cb", "a\u200cb"),
        (ValueError("\x1b"), "\\x1b"),
    ],
)
def test_controls_are_written_out(text, shown):
    assert show(text) == shown


@given(st.text(alphabet=st.characters(codec=None)))
def test_nothing_that_steers_is_left(text):
    shown = show(text, keep="\n")
    steering = ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert not {letter for letter in shown if unicodedata.category(letter) in steering} - set("\n\u200c\u200d")
    assert show(shown, keep="\n") == shown
    shown.encode()


@pytest.mark.parametrize("steering", STEERING)
@pytest.mark.parametrize("terminal", [False, True])
def test_the_console_prints_what_it_is_given(steering, terminal):
    said = f"[red]a[/b] :smile: {steering} z"
    table = Table()
    table.add_column(Text(said), overflow="fold")
    table.add_row(said)
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, no_color=True, width=500)
    for renderable in (said, Text(said), table):
        console.print(renderable, soft_wrap=True)
    text = file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")  # the heading is bold in a terminal
    assert steering not in text
    assert text.count("[red]a[/b] :smile:") == 4
    assert not {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf")} - {"\n"}


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "\u200d\u200c", "\x00\x1b", "\u202e \ufeff", "\u3000"])
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["?", "\u200bx", "肝", "\U0001f600", "\x00 a"])
def test_what_shows_something_is_not_blank(text: str) -> None:
    assert not is_blank(text)
