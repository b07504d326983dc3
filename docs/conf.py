"""How Sphinx builds these pages; `make docs` calls it."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
INIT = (ROOT / "flask_presence/__init__.py").read_text(encoding="utf-8")

project = "Flask-Presence"
author = copyright = "the Flask-Presence authors"
release = version = re.search(r'^__version__ = "(.+)"$', INIT, re.MULTILINE)[1]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["deployment"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
default_role = "any"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 80

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"Flask-Presence {release}"
html_copy_source = False
html_show_sphinx = False
