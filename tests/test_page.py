"""Pages of HTML: everything in one file, nothing of the user's taken for markup."""

import base64

import pytest

from vla_jax.page import commands, data_uri, image, paragraphs, table, write_page


def test_a_page_stands_alone_and_escapes_what_is_text(tmp_path):
    path = write_page(
        tmp_path / "deep" / "page.html",
        "a & b",
        [paragraphs(["<1>"]), commands({"Do it": "make <it>"})],
    )
    page = path.read_text()
    assert page.startswith("<!doctype html>")
    assert "<title>a &amp; b</title>" in page and "<h1>a &amp; b</h1>" in page
    assert "<p>&lt;1&gt;</p><p>Do it</p><pre>make &lt;it&gt;</pre>" in page
    assert "href" not in page and "<script" not in page
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_numbers_are_set_to_the_right():
    rows = [("task", "75.0%", "1,024", "3/4", "3 steps", "")]
    assert table(("a", "b", "c", "d", "e", "f"), rows) == (
        "<table><tr><th>a<th>b<th>c<th>d<th>e<th>f</tr>"
        '<tr><td>task<td class="number">75.0%<td class="number">1,024'
        '<td class="number">3/4<td>3 steps<td></tr></table>'
    )


def test_pictures_lie_within_the_page():
    uri = data_uri(b"pixels", "jpeg")
    assert uri == "data:image/jpeg;base64," + base64.b64encode(b"pixels").decode()
    assert image(b"pixels", "jpeg", 'a "b"') == (
        f'<img alt="a &quot;b&quot;" src="{uri}">'
    )
    with pytest.raises(KeyError):
        data_uri(b"", "gif")
