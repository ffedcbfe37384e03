"""How Sphinx builds these pages: `nox -s docs`."""

import logging
from importlib.metadata import version as installed_version
from typing import Any

project = "hotplumb"
author = "the hotplumb contributors"
copyright = author
release = version = installed_version("hotplumb")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"hotplumb {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings mark code by single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

# A section may have no page yet; Sphinx gives this warning no type that `suppress_warnings` could name.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda log: getattr(log, "subtype", "") != "empty_glob")


def drop_module_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the maps of the source tree, which are for who works on it, out of the reference."""
    if what == "module":
        lines.clear()


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", drop_module_docstring)
