"""How Sphinx builds these pages: ``make docs``."""

import re
from pathlib import Path

HERE = Path(__file__).parent

project = "undrift"
copyright = "the authors of undrift"
release = re.search(r'^version = "(.*)"$', (HERE.parent / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]
version = release

extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["images/*.py"]
nitpicky = True

html_theme = "furo"
html_title = f"undrift {release}"
html_static_path = ["style"]
html_css_files = ["wide.css"]
html_copy_source = False
