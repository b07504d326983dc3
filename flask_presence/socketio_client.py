"""Which Socket.IO browser client goes with this package.

A wheel carries the file itself, `static/vendor/socket.io.min.js`. Where it was built without npm it
does not, and pages load the same bytes from the official CDN. `setup.py` runs this file before
anything is installed, so it imports nothing; the npm package's hash, there, changes with `VERSION`.
"""

VERSION: str = "4.8.3"
CDN_URL: str = f"https://cdn.socket.io/{VERSION}/socket.io.min.js"
CDN_INTEGRITY: str = "sha384-kzavj5fiMwLKzzD1f8S7TeoVIEi7uKHvbTA3ueZkrzYq75pNQUiUi6Dy98Q3fxb0"
