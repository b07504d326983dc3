"""The test app for gunicorn to load: ``gunicorn gunicorn_app:app``."""

from __future__ import annotations

import json
import os

from server import create_app, report

app, _ = create_app(json.loads(os.environ["TEST_CONFIG"]))
report(app)
