"""Hooks of MkDocs: pages from other folders, notebooks as pages, formulas as MathML.

The documents are also read in a repository browser; their links are those of the repository.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import ziamath
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Documents of the top folder and their pages."""
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_SIGNS = {"●": "good", "◐": "partly", "✗": "bad", "○": "open", "≠": "open"}
"""Classes of a table's fields by the sign of their verdict (docs/results/gallery.md)."""
_FONT = "STIXTwoMath-Regular.ttf"
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top folder's documents and of the notebooks."""
    docs = Path(config.docs_dir)
    for name, page in _OUTSIDE.items():
        text = (docs.parent / name).read_text()
        files.append(File.generated(config, page, content=_from_top(text)))
    for notebook in sorted((docs / "notebooks").glob("*.ipynb")):
        page = notebook.relative_to(docs).with_suffix(".md").as_posix()
        files.append(File.generated(config, page, content=as_markdown(json.loads(notebook.read_text()))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to files by links to their pages, with the pages' titles, and links to no page by their text."""
    del config
    markdown = re.sub(r"(\]\([^)\s:]*notebooks/[^)\s]*)\.ipynb", r"\1.md", markdown)
    for name, target in _OUTSIDE.items():
        markdown = markdown.replace(f"](../{name}", f"]({target}")

    def titled(match: re.Match[str]) -> str:
        target = (Path(page.file.src_path).parent / match[2].partition("#")[0]).as_posix()
        file = files.get_file_from_path(os.path.normpath(target))
        title = re.search(r"^# (.+)$", file.content_string, re.MULTILINE) if file else None
        return f"[{title[1]}]({match[2]})" if title else match[0]

    def inside(match: re.Match[str]) -> str:
        outside = os.path.normpath(Path(page.file.src_path).parent / match[2]).startswith("..")
        return match[1] if outside else match[0]

    markdown = re.sub(r"\[([\w/.-]+\.md)\]\(([^)]+)\)", titled, markdown)
    return re.sub(r"\[([^\]]+)\]\((\.\./[^)]+)\)", inside, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Copy a font for formulas into the site: browsers set them badly in a text font."""
    font = Path(ziamath.__file__).parent / "fonts" / _FONT
    shutil.copyfile(font, Path(config.site_dir) / "figures" / _FONT)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert formulas to MathML, which browsers draw without scripts, and colour the verdicts of tables."""
    del page, config, files
    html = re.sub(r"<td>([^<]*\d ([●◐✗○≠])†?</td>)", lambda cell: f'<td class="{_SIGNS[cell[2]]}">{cell[1]}', html)
    return _FORMULA.sub(_mathml, html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Name the theme's search dialog for screen readers."""
    del page, config
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1)


def _mathml(match: re.Match[str]) -> str:
    source = match[2]
    for entity, letter in _ENTITIES.items():
        source = source.replace(entity, letter)
    # The converter takes these two for operators and sets them with an operator's spaces.
    source = source.replace(r"\lvert", r"\left\vert").replace(r"\rvert", r"\right\vert")
    if match[1] == "span":
        return convert(source.strip(), display="inline")
    # The keyboard scrolls a wide formula.
    return convert(source.strip(), display="block").replace("<math ", '<math tabindex="0" ', 1)


def _from_top(text: str) -> str:
    """Return a document of the top folder with links relative to ``docs``; links to other files become plain text."""
    text = re.sub(r'(\]\(|src=")docs/', r"\1", text)
    for name, target in _OUTSIDE.items():
        text = text.replace(f"]({name}", f"]({target}")
    return re.sub(r"\[([^\]]+)\]\((?!https?://)(?![^)]*\.(?:md|ipynb|svg))[^)#][^)]*\)", r"\1", text)


def as_markdown(notebook: dict[str, Any]) -> str:
    """Return a notebook with its stored outputs as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\]\(\.\./([^)]+)\)", r"](../\1)", source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                source = f"data:image/png;base64,{_joined(data['image/png'])}"
                parts.append(f'<img alt="the plot of the cell above" src="{source}">')
            elif text := _joined(output.get("text") or data.get("text/plain", "")):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _joined(text: str | list[str]) -> str:
    return ("".join(text) if isinstance(text, list) else text).replace("\n\n\n", "\n\n").strip("\n")
