"""How the site is built from these pages: `tox -e docs` writes it to build/docs/index.html.

The pages are Markdown that reads well without being built, too. What the code knows better (settings, commands,
phases) is filled in here, where a page says `<!-- made: … -->` (`made/`): at build time, so that no page can be behind
the code, and whoever adds an option has nothing to commit twice. Links that lead out of this folder are turned towards
their place in the site. A page that loads anything from elsewhere fails the build: the site is read on hosts without
a network.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import qworker  # noqa: E402

from made import fill  # noqa: E402

project = "qworker"
author = "The qworker authors"
release = version = qworker.__version__
extensions = ["myst_parser"]
exclude_patterns = ["made", "static"]
nitpicky = True

myst_heading_anchors = 4
#: Lines of log, output of commands, and ACL lines are no language.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "none"

html_theme = "furo"
html_title = f"qworker {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

#: Pages outside of this folder, and the page of the site that includes them.
_INCLUDED = {
    "../ARCHITECTURE.md": "architecture.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../README.md": "index.md",
}
_FOREIGN = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"((?:https?:)?//[^\"]+)\"")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _prepare)
    app.connect("include-read", _prepare_included)
    app.connect("build-finished", _stay_at_home)


def _prepare(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = _turned(fill(source[0]))


def _prepare_included(_app: Sphinx, _path: Path, _page: str, source: list[str]) -> None:
    """The pages of the repository's root: what they link to in `docs/` is beside them here."""
    source[0] = _turned(re.sub(r"\]\(docs/", "](", source[0]))


def _turned(text: str) -> str:
    for outside, inside in _INCLUDED.items():
        text = text.replace(f"]({outside}", f"]({inside}").replace(f"]({outside.removeprefix('../')}", f"]({inside}")
    # A folder of the repository is no page: its name stays.
    return re.sub(r"\[([^\]]+)\]\((\.\./[\w/]+/?)\)", _name_of_folder, text)


def _name_of_folder(link: re.Match[str]) -> str:
    folder = link[2].removeprefix("../")
    return f"`{folder}`" if folder in link[1] else f"{link[1]} (`{folder}`)"


def _stay_at_home(app: Sphinx, error: Any) -> None:
    for page in [] if error else sorted(Path(app.outdir).rglob("*.html")):
        for address in _FOREIGN.findall(page.read_text("utf-8")):
            logging.getLogger(__name__).warning("%s loads %s", page.name, address)
