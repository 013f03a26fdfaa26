"""The manual, built by `make docs`: Markdown through MyST, the furo theme, warnings are errors."""

# ruff: noqa: INP001  # Sphinx reads it by its path

project = "Hauberk"
author = "The Hauberk authors"
copyright = "2026, the Hauberk authors"  # noqa: A001  # the name Sphinx reads
release = "0.1.0"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nitpicky = True

html_theme = "furo"
html_title = "Hauberk"
html_show_sphinx = False
html_copy_source = False
