"""`python -m example_app`: the board on http://127.0.0.1:5000, or on $HOST and $PORT."""

import os
import signal
import sys

from . import create_app, socketio
from .channels import presence

app = create_app()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    socketio.run(
        app,
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "5000")),
        allow_unsafe_werkzeug=True,  # a demo on your own machine; behind gunicorn in earnest
    )
finally:
    with app.app_context():
        presence.drain()  # everyone stays listed while the server starts again
