"""An app's own markup, filled in on the server."""

from __future__ import annotations

from typing import Any

import pytest

from flask_presence.markup import OwnMarkup, face_of


def user(user_id: str = "7", meta: Any = None, **info: Any) -> dict[str, Any]:
    return {"id": user_id, "info": info, "meta": meta or {}}


def fill(markup: str, somebody: dict[str, Any]) -> str:
    return str(OwnMarkup(markup).fill(somebody))


def test_what_has_no_slots_is_left_as_it_is() -> None:
    markup = '<li CLASS=x data-x="1">A &amp; B&nbsp;&#8230;<br>\n<svg><path d="M0"/></svg></li>'

    assert fill(f"\n  {markup}\n", user()) == markup


def test_a_text_replaces_what_stood_there_and_takes_its_own_direction() -> None:
    markup = '<p><b data-presence="name"><i>Some</i><br>body &amp; co</b>!</p>'

    filled = fill(markup, user(name="<Ada>"))

    assert filled == '<p><b data-presence="name" dir="auto">&lt;Ada&gt;</b>!</p>'


def test_a_direction_of_the_app_s_own_stays() -> None:
    filled = fill('<b dir="ltr" data-presence="id"></b>', user())

    assert filled == '<b dir="ltr" data-presence="id">7</b>'


def test_an_attribute_is_filled_replaced_or_taken_away() -> None:
    markup = '<b title="none" data-presence-title="info.title"></b>'

    assert fill(markup, user(title='"x"')) == (
        '<b data-presence-title="info.title" title="&#34;x&#34;"></b>'
    )
    assert fill(markup, user()) == '<b data-presence-title="info.title"></b>'


def test_show_and_hide_say_where_there_is_something_to_see() -> None:
    markup = '<p><i data-presence-show="avatar"></i><b hidden data-presence-hide="avatar"></b></p>'

    assert fill(markup, user(avatar="/a.png")) == (
        '<p><i data-presence-show="avatar"></i><b data-presence-hide="avatar" hidden=""></b></p>'
    )
    assert fill(markup, user(avatar="javascript:x")) == (
        '<p><i data-presence-show="avatar" hidden=""></i><b data-presence-hide="avatar"></b></p>'
    )


@pytest.mark.parametrize("value", ["javascript:alert(1)", "data:text/html,x", " /x", "x", 7, None])
def test_a_link_that_could_run_is_left_out_whatever_key_it_comes_from(value: Any) -> None:
    filled = fill('<a data-presence-href="info.site"></a>', user(site=value))

    assert filled == '<a data-presence-href="info.site"></a>'


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.5, "0.5"), (0, "0"), (True, "true"), (False, ""), (None, ""), (["x"], "")],
)
def test_a_value_is_shown_as_text_where_it_is_something_to_show(value: Any, text: str) -> None:
    filled = fill('<b data-presence="meta.x"></b>', user(meta={"x": value}))

    assert filled == f'<b data-presence="meta.x" dir="auto">{text}</b>'


@pytest.mark.parametrize(
    ("name", "initials"),
    [("ada", "A"), ("Ada King Lovelace", "AL"), ("ß b", "SSB"), ("  ", "7"), ("مرحبا بك", "مب")],
)
def test_initials_are_those_of_the_first_and_the_last_word(name: str, initials: str) -> None:
    assert face_of(user(name=name))["initials"] == initials


@pytest.mark.parametrize(
    ("markup", "problem"),
    [
        ("", "exactly one element"),
        ("text", "without text beside it"),
        ("<b></b>text", "without text beside it"),
        ("&amp;<b></b>", "without text beside it"),
        ("<b></b><b></b>", "exactly one element"),
        ("<li><b></li>", "</li> closes nothing"),
        ("</li>", "</li> closes nothing"),
        ("<ul><li>", "<li> is not closed"),
        ('<b data-presence="nmae"></b>', '<b data-presence="nmae">: no such value'),
        ('<b data-presence="constructor"></b>', "no such value"),
        ('<b data-presence="info"></b>', "no such value"),
        ('<b data-presence="info.a..b"></b>', "no such value"),
        ("<b data-presence></b>", "no such value"),
        ('<img data-presence="name">', "has no text"),
        ('<b data-presence-onclick="name"></b>', '"onclick" cannot be filled here'),
        ('<b data-presence-style="name"></b>', '"style" cannot be filled here'),
        ('<b data-presence-href="url"></b>', '"href" cannot be filled here'),
        ('<iframe data-presence-src="url"></iframe>', '"src" cannot be filled here'),
    ],
)
def test_a_markup_that_cannot_be_filled_is_an_error_that_says_why_and_where(
    markup: str, problem: str
) -> None:
    with pytest.raises(ValueError, match="markup for a user of presence_users") as raised:
        OwnMarkup(markup)

    assert problem in str(raised.value)
    assert str(raised.value).endswith(f"in: {markup}")
