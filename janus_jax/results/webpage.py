"""Pages that open from disk: one HTML file, no script, no network, relative links."""

import html
from urllib.parse import quote

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222228; background: #fcfbf8; margin: 2em auto; max-width: 1360px;
  padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 1.6em 0 .4em } table { border-collapse: collapse }
td, th { padding: 1px 14px 1px 0; text-align: left; vertical-align: top } td.number, th.number { text-align: right }
img { max-width: 100% } figure { margin: 0 } .faint { color: #6c6c74 } .yes { color: #188048 } .no { color: #be322c }
summary { cursor: pointer }
"""


def escaped(text) -> str:
    """A text as HTML."""
    return html.escape(str(text))


def link(path: str, content: str) -> str:
    """A link to a file beside the page. content: HTML."""
    return f'<a href="{quote(path)}">{content}</a>'


def image(path: str, side: int | None = None) -> str:
    """A picture that is loaded once it comes into view; side: of the square that is kept for it, in CSS pixels."""
    room = "" if side is None else f' width="{side}" height="{side}"'
    return f'<img src="{quote(path)}" loading="lazy" alt=""{room}>'


def settings(values: dict) -> str:
    """Settings by name, folded up."""
    if not values:
        return ""
    rows = "".join(
        f"<tr><td>{escaped(name)}</td><td><code>{escaped(value)}</code></td></tr>" for name, value in values.items()
    )
    return f"<details><summary>settings</summary><table>{rows}</table></details>"


def document(title: str, body: str, style: str = "") -> str:
    """The whole page. body: HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{STYLE}{style}</style></head>"
        f'<body><h1 dir="auto">{escaped(title)}</h1>\n{body}</body></html>\n'
    )
