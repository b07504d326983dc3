worker_class = "gthread"
threads = 250  # one for each open WebSocket, and some for requests


def post_worker_init(worker):
    from flask_presence import gunicorn  # not above: gevent patches before it

    gunicorn.post_worker_init(worker)


def worker_exit(server, worker):
    from flask_presence import gunicorn

    gunicorn.worker_exit(server, worker)
