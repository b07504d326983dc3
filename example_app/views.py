"""The pages. Presence is in their templates; here it is told only when a user changes."""

# Flask-Login ships no types.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import time
from functools import partial

from flask import (
    Blueprint,
    Response,
    abort,
    copy_current_request_context,
    flash,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required, login_user, logout_user
from sqlalchemy import select
from werkzeug.exceptions import NotFound

from .channels import presence
from .models import Group, Post, Topic, User, db

views = Blueprint("views", __name__)


@views.get("/")
def home() -> str:
    topics = db.session.scalars(select(Topic).order_by(Topic.id))
    return render_template("home.html", topics=[t for t in topics if t.open_to(current_user)])


@views.get("/topic/<int:topic_id>")
def topic(topic_id: int) -> str:
    return render_template("topic.html", topic=readable_topic(topic_id))


@views.post("/topic/<int:topic_id>")
@login_required
def reply(topic_id: int) -> ResponseReturnValue:
    topic = readable_topic(topic_id)
    text = request.form.get("text", "").strip()[:2000]
    if not text:
        flash("Write something first.")
        return redirect(url_for(".topic", topic_id=topic.id))
    post = Post(topic_id=topic.id, author_id=current_user.id, text=text)
    db.session.add(post)
    db.session.commit()
    return redirect(url_for(".topic", topic_id=topic.id, _anchor=f"post-{post.id}"))


@views.get("/guests")
def guests() -> str:
    return render_template("guests.html", state=presence.state_of("/lobby/guests"))


@views.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> ResponseReturnValue:
    """No password, so anyone can be anyone: replace this with the sign-in of your app."""
    if request.method == "GET":
        return render_template("sign_in.html")
    name = " ".join(request.form.get("name", "").split())
    if not (2 <= len(name) <= 30 and name.isprintable()):
        return render_template("sign_in.html", error="A name has 2 to 30 characters."), 400
    user = db.session.scalar(select(User).filter_by(name=name)) or User(name=name)
    user.groups = list(db.session.scalars(select(Group))) if "member" in request.form else []
    db.session.add(user)
    db.session.commit()
    presence.reload(user)  # groups are read when a connection opens: open tabs open it again
    login_user(user)
    topic_id = request.args.get("topic", type=int)
    return redirect(url_for(".topic", topic_id=topic_id) if topic_id else url_for(".home"))


@views.post("/sign-out")
@login_required
def sign_out() -> ResponseReturnValue:
    # The other tabs of this browser connect again as guests, once its cookie is gone.
    reload = partial(presence.reload, current_user.get_id())
    response = redirect(url_for(".home"))
    response.call_on_close(copy_current_request_context(reload))
    logout_user()
    return response


@views.get("/avatar/<int:user_id>.svg")
def avatar(user_id: int) -> ResponseReturnValue:
    user = db.get_or_404(User, user_id)
    response = Response(render_template("avatar.svg", user=user), mimetype="image/svg+xml")
    response.cache_control.max_age = 86400
    return response


@views.app_errorhandler(404)
def not_found(error: NotFound) -> ResponseReturnValue:
    return render_template("not_found.html"), 404


def readable_topic(topic_id: int) -> Topic:
    topic: Topic = db.get_or_404(Topic, topic_id)
    if not topic.open_to(current_user):
        abort(404)  # what a topic that never existed says
    return topic


def ago(then: float) -> str:
    """A template filter: seconds since the epoch become "5 min ago"."""
    seconds = time.time() - then
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"
