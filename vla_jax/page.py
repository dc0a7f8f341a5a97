"""Self-contained HTML pages: one look for all reports, no file or network needed."""

import base64
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

escape = html.escape

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #1c2733; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .35rem .9rem; text-align: left;
       border-bottom: 1px solid #d8dee6; vertical-align: top; }
td.number { text-align: right; }
.bar { background: #e6ebf1; width: 14rem; height: .8rem; position: relative; }
.bar i { background: #2f7d6d; height: 100%; display: block; }
.bar b { position: absolute; top: -.15rem; height: 1.1rem; border: solid #1c2733;
         border-width: 0 2px; box-sizing: border-box; }
.grid { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } video { border-radius: 6px; width: 256px; }
figcaption { font-size: .9rem; } video + figcaption { max-width: 256px; }
svg + figcaption { max-width: 220px; }
img { max-width: 100%; } figure.strip { margin: 0 0 1.2rem; }
figure.strip img { border-radius: 6px; display: block; }
pre { background: #f3f5f8; padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; }
.level { border-radius: 4px; padding: .05rem .5rem; font-size: .85rem; color: #fff; }
.error { background: #9b2226; } .warning { background: #b45f06; }
.ok { background: #2f7d6d; } .skipped { background: #7b8794; }
.remedy { color: #52606d; } .name { white-space: nowrap; }
"""
_NUMBER = ' class="number"'
_MIMES = {"jpeg": "image/jpeg", "mp4": "video/mp4", "png": "image/png"}


def write_page(path: str | os.PathLike, title: str, sections: Iterable[str]) -> Path:
    """Writes a page that can be mailed and opened anywhere; missing folders are made.

    Args:
        path: the HTML file; it appears only when it is complete.
        title: heading of the page, plain text.
        sections: pieces of HTML below the heading.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<body><h1>{escape(title)}</h1>{''.join(sections)}</body></html>",
        encoding="utf-8",
    )
    os.replace(temporary, path)
    return path


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of a "jpeg", "png" or "mp4" as a URL that holds them."""
    return f"data:{_MIMES[kind]};base64,{base64.b64encode(content).decode()}"


def paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def commands(steps: Mapping[str, str]) -> str:
    """What one may want to do, each with the command for it."""
    return "".join(
        f"<p>{escape(what)}</p><pre>{escape(command)}</pre>"
        for what, command in steps.items()
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; numbers are set to the right."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}" for cell in head) + "</tr>"]
    for row in rows:
        cells = (f"<td{_NUMBER if _is_number(cell) else ''}>{cell}" for cell in row)
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def image(content: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="{data_uri(content, kind)}">'


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() and not cell.strip("0123456789.,%/")
