/** The connection: what is sent when, and what a page hears of it. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { stopTime, tick } from "./clock.mjs";
import { socketStub } from "./socket_stub.mjs";
import "../../flask_presence/static/presence.js";

const { FlaskPresence } = globalThis;
const A = "/topic/1";
const B = "/topic/2";

let socket;
let presence;

beforeEach(() => {
  stopTime();
  mock.method(Math, "random", () => 0.5);
  socket = socketStub();
  presence = FlaskPresence.connect({ io: (...call) => Object.assign(socket, { call }) });
});

afterEach(() => {
  presence.close();
  mock.restoreAll();
});

const turn = () => new Promise(setImmediate);
const user = (id, meta = {}) => ({ id, info: { name: `User ${id}` }, meta });
const idsOf = (channel) => channel.users.map(({ id }) => id);

function state(channel, revision, ids, more = {}) {
  return { channel, epoch: "e1", revision, count: ids.length, anonymous: 0, users: ids.map((id) => user(id)), ...more };
}

function diff(channel, revision, count, lists = {}, more = {}) {
  return { channel, epoch: "e1", revisions: [[revision, revision]], count, anonymous: 0, ...lists, ...more };
}

/** Every packet sent so far. */
function packets() {
  return socket.sent.map(({ event, payload }) => [event, payload]);
}

/** Everything sent that still waits for an acknowledgement. */
function waiting() {
  return socket.sent.filter((packet) => !packet.done).map(({ event, payload }) => [event, payload]);
}

/** Acknowledges the oldest packet of that event; no answer: it timed out. */
async function answer(event, reply = { ok: true }) {
  const packet = socket.sent.find((candidate) => !candidate.done && candidate.event === event);
  assert.ok(packet, `no ${event} is waiting, but ${JSON.stringify(waiting())}`);
  packet.done = true;
  if (reply === null) packet.acknowledge(new Error("operation has timed out"));
  else packet.acknowledge(null, reply);
  await turn();
}

const ok = (...results) => ({ ok: true, results: results.map((result) => ({ ok: true, ...result })) });
const no = (error, more = {}) => ({ ok: false, error, message: `${error}!`, ...more });

async function up() {
  socket.up();
  await turn();
}

async function down(reason) {
  for (const packet of socket.sent) packet.done = true;
  socket.down(reason);
  await turn();
}

async function pass(milliseconds) {
  tick(milliseconds);
  await turn();
}

/** A handle that is subscribed, with a state. */
async function subscribed(name = A, first = state(name, 3, ["a", "b"])) {
  const channel = presence.channel(name);
  const done = channel.subscribe();
  await turn();
  await answer("subscribe", { ok: true, state: first });
  await done;
  return channel;
}

async function entered(name = A, meta) {
  const channel = presence.channel(name);
  const done = channel.enter(meta);
  await turn();
  await answer("enter");
  await done;
  return channel;
}

/** Writes down what a channel says. */
function listen(channel) {
  const heard = [];
  for (const event of ["change", "enter", "leave", "update", "sync", "evicted", "error"]) {
    channel.on(event, (value) => heard.push(value === undefined ? event : `${event} ${value.id ?? value.code ?? value.reason}`));
  }
  return heard;
}

/** How a promise ended: "pending", "done" or the code of its error. */
function outcome(promise) {
  const seen = { now: "pending" };
  promise.then(() => (seen.now = "done"), (error) => (seen.now = error.code));
  return seen;
}

// ---- connect

test("connect goes to the namespace at the path, with the auth given", () => {
  const other = socketStub();

  FlaskPresence.connect({ io: (...call) => Object.assign(other, { call }), url: "https://live.example/", path: "/ws", namespace: "/here", auth: { token: "t" } });

  const transports = { transports: ["websocket", "polling"], tryAllTransports: true };
  assert.deepEqual(socket.call, ["/presence", { path: "/socket.io", ...transports }]);
  assert.deepEqual(other.call, ["https://live.example/here", { path: "/ws", ...transports, auth: { token: "t" } }]);
});

test("connect without options is the page's one connection until that is closed", () => {
  globalThis.io = () => socketStub();

  const first = FlaskPresence.connect();
  const second = FlaskPresence.connect();
  first.close();
  const third = FlaskPresence.connect();
  third.close();
  delete globalThis.io;

  assert.equal(first, presence);
  assert.equal(second, first);
  assert.notEqual(third, first);
});

test("connect without a Socket.IO client says what is missing", () => {
  assert.throws(() => FlaskPresence.connect({ path: "/x" }), /load it before presence\.js/);
});

test("the status goes from connecting to live to offline and back", async () => {
  const heard = [presence.status];
  presence.on("status", (status) => heard.push(status));

  await up();
  await down();
  await up();
  presence.close();

  assert.deepEqual(heard, ["connecting", "live", "offline", "live", "offline"]);
});

test("hello tells who this client is, before or after connect", async () => {
  socket.emit("hello", { client_id: "c1", user_id: "7", heartbeat_interval: 25 });
  await up();
  const ids = [presence.clientId, presence.userId];
  await down();

  assert.deepEqual(ids, ["c1", "7"]);
  assert.equal(presence.clientId, null);
});

// ---- asking

test("subscribe resolves when the state is there", async () => {
  await up();
  const channel = presence.channel(A);
  const done = outcome(channel.subscribe());
  await turn();
  assert.equal(done.now, "pending");

  await answer("subscribe", { ok: true, state: state(A, 3, ["a", "b"], { anonymous: 2 }) });

  assert.equal(done.now, "done");
  assert.deepEqual([idsOf(channel), channel.count, channel.anonymous, channel.countOnly], [["a", "b"], 2, 2, false]);
  assert.deepEqual(packets(), [["subscribe", { channel: A }]]);
});

test("subscribe with an initial state sends its position and keeps the state where it is current", async () => {
  await up();
  const channel = presence.channel(A, { initial: state(A, 3, ["a"]) });
  const before = idsOf(channel);
  const done = outcome(channel.subscribe());
  await turn();

  await answer("subscribe", { ok: true, state: null });

  assert.deepEqual(packets(), [["subscribe", { channel: A, position: ["e1", 3] }]]);
  assert.equal(done.now, "done");
  assert.deepEqual([before, idsOf(channel)], [["a"], ["a"]]);
});

test("an initial state of null, or of another channel, is none", () => {
  const channel = presence.channel(A, { initial: null });
  const other = presence.channel(A, { initial: state(B, 3, ["a"]) });

  assert.deepEqual([channel.users, other.users], [[], []]);
});

test("an initial state serves while the first state is awaited, and once nobody is subscribed any more", async () => {
  await up();
  const channel = presence.channel(A);
  outcome(channel.subscribe());
  await turn();
  presence.channel(A, { initial: state(A, 3, ["a"]) });
  const meanwhile = idsOf(channel);
  await answer("subscribe", { ok: true, state: state(A, 4, ["b"]) });
  const live = idsOf(channel);
  outcome(channel.unsubscribe());

  const later = presence.channel(A, { initial: state(A, 2, ["c"], { epoch: "e2" }) });

  assert.deepEqual([meanwhile, live, idsOf(later)], [["a"], ["b"], ["c"]]);
});

test("an initial state that is older than what is live changes nothing", async () => {
  await up();
  const channel = await subscribed(A, state(A, 9, ["x"], { epoch: "e2" }));

  presence.channel(A, { initial: state(A, 20, ["old"]) });

  assert.deepEqual(idsOf(channel), ["x"]);
});

test("what is asked for in one go is one batch, entering before subscribing", async () => {
  await up();
  outcome(presence.channel(A).subscribe());
  outcome(presence.channel(A).enter({ n: 1 }));
  outcome(presence.channel(B).subscribe());
  await turn();

  assert.deepEqual(packets(), [["batch", { ops: [["enter", { channel: A, meta: { n: 1 } }], ["subscribe", { channel: A }], ["subscribe", { channel: B }]] }]]);
});

test("one packet is in flight; the next one goes after the acknowledgement", async () => {
  await up();
  outcome(presence.channel(A).subscribe());
  await turn();
  outcome(presence.channel(B).subscribe());
  outcome(presence.channel(B).enter());
  await turn();
  assert.equal(packets().length, 1);

  await answer("subscribe", { ok: true, state: state(A, 1, []) });

  assert.deepEqual(waiting(), [["batch", { ops: [["enter", { channel: B }], ["subscribe", { channel: B }]] }]]);
});

test("a batch has at most 100 operations", async () => {
  for (let number = 0; number < 120; number += 1) outcome(presence.channel(`/topic/${number}`).subscribe());
  await up();
  assert.equal(waiting()[0][1].ops.length, 100);

  await answer("batch", ok(...Array(100).fill({ state: state(A, 1, []) })));

  assert.equal(waiting()[0][1].ops.length, 20);
});

test("leaving goes before entering in a batch, to make room below the limits", async () => {
  await up();
  const old = await entered(B);
  outcome(presence.channel(A).enter());
  outcome(old.leave());
  await turn();

  assert.deepEqual(waiting(), [["batch", { ops: [["leave", { channel: B }], ["enter", { channel: A }]] }]]);
});

test("nothing is sent while offline", async () => {
  outcome(presence.channel(A).enter());
  await turn();

  assert.deepEqual(packets(), []);
});

test("enter, leave, enter while offline ends as one enter", async () => {
  const channel = presence.channel(A);
  const ends = [channel.enter({ n: 1 }), channel.leave(), channel.enter({ n: 2 })].map(outcome);

  await up();

  assert.deepEqual(packets(), [["enter", { channel: A, meta: { n: 2 } }]]);
  await answer("enter");
  assert.deepEqual(ends.map(({ now }) => now), ["done", "done", "done"]);
  assert.equal(channel.present, true);
});

test("enter, leave while offline ends as leave: a dropped connection may still count", async () => {
  const channel = presence.channel(A);
  outcome(channel.enter());
  outcome(channel.leave());

  await up();

  assert.deepEqual(packets(), [["leave", { channel: A }]]);
});

test("what is asked for while its opposite is in flight follows it", async () => {
  await up();
  const channel = presence.channel(A);
  const first = outcome(channel.enter());
  await turn();
  const second = outcome(channel.leave());
  await turn();

  await answer("enter");
  assert.deepEqual([first.now, second.now, channel.present], ["done", "pending", true]);
  await answer("leave");

  assert.deepEqual([second.now, channel.present], ["done", false]);
});

test("what is so already is not asked for again", async () => {
  await up();
  const channel = await entered(A, { n: 1 });
  const before = packets().length;

  await channel.enter({ n: 1 });
  await channel.enter();
  await channel.update({ n: 1 });

  assert.equal(packets().length, before);
});

test("update sends the new meta, and enter without meta keeps it", async () => {
  await up();
  const channel = await entered(A, { n: 1 });
  const done = outcome(channel.update({ n: 2 }));
  await turn();
  assert.deepEqual(waiting(), [["update", { channel: A, meta: { n: 2 } }]]);
  await answer("update");
  await channel.enter();

  await down();
  await up();

  assert.equal(done.now, "done");
  assert.deepEqual(waiting(), [["enter", { channel: A, meta: { n: 2 } }]]);
});

test("meta is copied when it is given", async () => {
  const meta = { typing: true };
  outcome(presence.channel(A).enter(meta));
  meta.typing = false;

  await up();

  assert.deepEqual(packets(), [["enter", { channel: A, meta: { typing: true } }]]);
});

test("meta that is no JSON is a bad_request, and nothing is entered", async () => {
  const cycle = {};
  cycle.cycle = cycle;
  await up();

  await assert.rejects(presence.channel(A).enter(cycle), { code: "bad_request" });

  assert.deepEqual(packets(), []);
});

test("update without having entered is refused with not_present", async () => {
  await up();

  await assert.rejects(presence.channel(A).update({}), { code: "not_present", name: "PresenceError" });
});

test("an update that the server answers with not_present enters again with its meta", async () => {
  await up();
  const channel = await entered(A);
  const done = outcome(channel.update({ n: 2 }));
  await turn();

  await answer("update", no("not_present"));
  assert.deepEqual(waiting(), [["enter", { channel: A, meta: { n: 2 } }]]);
  await answer("enter");

  assert.deepEqual([done.now, channel.present], ["done", true]);
});

// ---- handles

test("a channel is left when the last handle that entered leaves", async () => {
  await up();
  const first = await entered(A);
  const second = presence.channel(A);
  await second.enter();
  await first.leave();
  assert.deepEqual(waiting(), []);
  assert.equal(first.present, true);

  outcome(second.leave());
  await turn();

  assert.deepEqual(waiting(), [["leave", { channel: A }]]);
});

test("a channel is unsubscribed when the last handle unsubscribes", async () => {
  await up();
  const first = await subscribed();
  const second = presence.channel(A);
  await second.subscribe();
  await first.unsubscribe();
  assert.deepEqual(waiting(), []);

  outcome(second.unsubscribe());
  await turn();

  assert.deepEqual(waiting(), [["unsubscribe", { channel: A }]]);
});

test("handles made before any of them held the channel share it, too", async () => {
  await up();
  const [first, second] = [presence.channel(A), presence.channel(A)];
  outcome(second.enter());
  await turn();
  await answer("enter");

  await first.leave();
  await first.unsubscribe();

  assert.deepEqual([first.present, second.present, waiting()], [true, true, []]);
});

test("a handle that leaves twice does not take the other one along", async () => {
  await up();
  const first = await entered(A);
  const second = presence.channel(A);
  await second.enter();

  await first.leave();
  await first.leave();

  assert.deepEqual(waiting(), []);
});

test("an unsubscribed handle hears nothing more while others do", async () => {
  await up();
  const first = await subscribed();
  const second = presence.channel(A);
  await second.subscribe();
  const [one, two] = [listen(first), listen(second)];

  await first.unsubscribe();
  socket.emit("diff", diff(A, 4, 1, { left: [{ id: "a", revision: 4 }] }));

  assert.deepEqual([one, two], [[], ["leave a", "change"]]);
});

test("after the last unsubscribe, diffs change nothing; subscribing again sends the position", async () => {
  await up();
  await entered();
  const channel = await subscribed();
  outcome(channel.unsubscribe());
  await turn();
  await answer("unsubscribe");

  socket.emit("diff", diff(A, 4, 1, { left: [{ id: "a", revision: 4 }] }));
  socket.emit("state", state(A, 4, ["b"]));
  outcome(channel.subscribe());
  await turn();

  assert.deepEqual(idsOf(channel), ["a", "b"]);
  assert.deepEqual(waiting(), [["subscribe", { channel: A, position: ["e1", 3] }]]);
});

test("channels that nobody holds any more are forgotten", async () => {
  await up();
  for (let number = 0; number < 20; number += 1) {
    const channel = await subscribed(`/topic/${number}`);
    outcome(channel.unsubscribe());
    await turn();
    await answer("unsubscribe");
  }

  assert.equal(presence._channels.size, 0);
});

// ---- events

test("enter, update and leave come from comparing before and after, then change", async () => {
  await up();
  const channel = await subscribed();
  const heard = listen(channel);

  socket.emit("diff", diff(A, 4, 2, { entered: [{ ...user("c"), revision: 4 }], updated: [{ ...user("b", { n: 1 }), revision: 4 }], left: [{ id: "a", revision: 4 }] }));

  assert.deepEqual(heard, ["leave a", "enter c", "update b", "change"]);
});

test("a state fires sync, and change only where something changed", async () => {
  await up();
  const channel = await subscribed();
  const heard = listen(channel);

  socket.emit("state", state(A, 3, ["a", "b"]));
  socket.emit("state", state(A, 4, ["b"]));

  assert.deepEqual(heard, ["sync", "leave a", "sync", "change"]);
});

test("another order is a change", async () => {
  await up();
  const channel = await subscribed();
  const heard = listen(channel);

  socket.emit("state", state(A, 4, ["b", "a"]));
  socket.emit("diff", diff(A, 5, 2, { entered: [{ ...user("b"), revision: 5 }] }));

  assert.deepEqual([heard, idsOf(channel)], [["sync", "change", "change"], ["a", "b"]]);
});

test("who left and comes again enters", async () => {
  await up();
  const channel = await subscribed();
  const heard = listen(channel);

  socket.emit("diff", diff(A, 4, 1, { left: [{ id: "a", revision: 4 }] }));
  socket.emit("diff", diff(A, 5, 2, { entered: [{ ...user("a"), revision: 5 }] }));
  socket.emit("state", state(A, 5, ["b", "a"]));

  assert.deepEqual(heard, ["leave a", "change", "enter a", "change", "sync"]);
});

test("the leaving of someone unknown fires nothing", async () => {
  await up();
  const heard = listen(await subscribed());

  socket.emit("diff", diff(A, 4, 2, { left: [{ id: "z", revision: 4 }] }));

  assert.deepEqual(heard, []);
});

test("an anonymous client's coming is a change of counts alone", async () => {
  await up();
  const channel = await subscribed();
  const heard = listen(channel);

  socket.emit("diff", diff(A, 4, 2, {}, { anonymous: 1 }));

  assert.deepEqual([heard, channel.anonymous], [["change"], 1]);
});

test("info and meta with their keys in another order are the same", async () => {
  await up();
  const channel = await subscribed(A, state(A, 3, [], { count: 1, users: [{ id: "a", info: { x: 1, y: { p: [1], q: 2 } }, meta: {} }] }));
  const heard = listen(channel);

  socket.emit("diff", diff(A, 4, 1, { updated: [{ id: "a", info: { y: { q: 2, p: [1] }, x: 1 }, meta: {}, revision: 4 }] }));

  assert.deepEqual(heard, []);
});

test("a channel that turns count-only changes, but nobody left", async () => {
  await up();
  const channel = await subscribed();
  const heard = listen(channel);

  socket.emit("state", { channel: A, epoch: "e1", revision: 4, count: 2, anonymous: 0, count_only: true });

  assert.deepEqual([heard, channel.users, channel.count, channel.countOnly], [["sync", "change"], [], 2, true]);
});

test("diffs that arrive before the subscription is acknowledged are applied after its state", async () => {
  await up();
  const channel = presence.channel(A);
  outcome(channel.subscribe());
  await turn();

  socket.emit("diff", diff(A, 4, 3, { entered: [{ ...user("c"), revision: 4 }] }));
  await answer("subscribe", { ok: true, state: state(A, 3, ["a", "b"]) });

  assert.deepEqual(idsOf(channel), ["a", "b", "c"]);
});

test("any other meta is an update", async () => {
  const metas = [{ a: 1 }, { a: 2 }, { a: {} }, { a: [] }, { a: null }, { a: [1] }, { a: [1, 2] }, { a: 1, b: 1 }, { b: 1 }, { c: 1 }, { c: "1" }];
  await up();
  const channel = await subscribed(A, state(A, 3, ["a"]));
  const heard = listen(channel);

  metas.forEach((meta, index) => socket.emit("diff", diff(A, 4 + index, 1, { updated: [{ ...user("a", meta), revision: 4 + index }] })));

  assert.deepEqual(heard, metas.flatMap(() => ["update a", "change"]));
});

test("an update of one's own meta is no change of present", async () => {
  await up();
  const channel = await entered();
  const heard = listen(channel);
  outcome(channel.update({ n: 2 }));
  await turn();

  await answer("update");

  assert.deepEqual(heard, []);
});

test("on returns an off function", async () => {
  await up();
  const channel = await subscribed();
  let calls = 0;
  const off = channel.on("change", () => (calls += 1));
  socket.emit("diff", diff(A, 4, 2, {}, { anonymous: 1 }));

  off();
  socket.emit("diff", diff(A, 5, 2, {}, { anonymous: 2 }));

  assert.equal(calls, 1);
});

test("an unknown event name is a TypeError that lists the known ones", () => {
  assert.throws(() => presence.channel(A).on("join", () => {}), { name: "TypeError", message: /enter, leave/ });
});

test("a callback that throws is reported and keeps no other from running", async () => {
  await up();
  const channel = await subscribed();
  const reported = mock.method(console, "error", () => {});
  let calls = 0;
  channel.on("change", () => assert.fail("mine"));
  channel.on("change", () => (calls += 1));

  socket.emit("diff", diff(A, 4, 2, {}, { anonymous: 1 }));

  assert.equal(calls, 1);
  assert.match(reported.mock.calls[0].arguments[0].message, /mine/);
});

test("present tells whether this client is in, and its turning is a change", async () => {
  await up();
  const channel = await entered();
  const heard = listen(channel);
  assert.equal(channel.present, true);

  await down();

  assert.deepEqual([channel.present, heard], [false, ["change"]]);
});

// ---- errors

for (const code of ["bad_request", "not_found", "login_required", "channel_full", "too_many_channels"]) {
  test(`an enter refused with ${code} rejects, is told as an error, and is not asked for again`, async () => {
    await up();
    const channel = presence.channel(A);
    const heard = listen(channel);
    const done = channel.enter();
    await turn();

    answer("enter", no(code));

    await assert.rejects(done, { code, message: `${code}!` });
    assert.deepEqual(heard, [`error ${code}`]);
    await down();
    await up();
    assert.deepEqual(waiting(), []);
  });
}

test("a refused handle holds the channel no more", async () => {
  await up();
  outcome(presence.channel(A).enter());
  await turn();
  await answer("enter", no("channel_full"));
  const channel = await entered(A);

  outcome(channel.leave());
  await turn();

  assert.deepEqual(waiting(), [["leave", { channel: A }]]);
});

test("who asked for the same while it was in flight gets the same answer", async () => {
  await up();
  const [first, second] = [presence.channel(A), presence.channel(A)];
  for (const [reply, expected] of [[no("login_required"), "login_required"], [{ ok: true }, "done"]]) {
    const one = outcome(first.enter());
    await turn();
    const two = outcome(second.enter());
    await turn();

    await answer("enter", reply);

    assert.deepEqual([one.now, two.now, waiting()], [expected, expected, []]);
  }
});

test("a refused subscription is told as an error", async () => {
  await up();
  const channel = presence.channel(A);
  const heard = listen(channel);
  outcome(channel.subscribe());
  await turn();

  await answer("subscribe", no("not_found"));

  assert.deepEqual(heard, ["error not_found"]);
});

test("what was shown is blank after a subscription was refused", async () => {
  await up();
  const initial = { channel: A, epoch: "e", revision: 1, count: 1, anonymous: 0, users: [{ id: "ada", info: {}, meta: {} }] };
  const channel = presence.channel(A, { initial });
  const heard = listen(channel);
  outcome(channel.subscribe());
  await turn();

  await answer("subscribe", no("not_found"));

  assert.deepEqual(heard, ["error not_found", "change"]);
  assert.deepEqual([channel.users, channel.count], [[], 0]);
});

test("a refused subscription leaves the entering alone", async () => {
  await up();
  const channel = await entered(A);
  const done = outcome(channel.subscribe());
  await turn();
  await answer("subscribe", no("not_found"));
  assert.equal(done.now, "not_found");

  await down();
  await up();

  assert.deepEqual(waiting(), [["enter", { channel: A }]]);
});

test("a refused update keeps the client in, with the meta it had", async () => {
  await up();
  const channel = await entered(A, { n: 1 });
  const done = outcome(channel.update({ huge: true }));
  await turn();
  await answer("update", no("bad_request"));
  assert.deepEqual([done.now, channel.present], ["bad_request", true]);

  await down();
  await up();

  assert.deepEqual(waiting(), [["enter", { channel: A, meta: { n: 1 } }]]);
});

test("a refusal does not undo what was asked for since", async () => {
  await up();
  const channel = presence.channel(A);
  const first = outcome(channel.enter({ bad: true }));
  await turn();
  const second = outcome(channel.enter({ good: true }));

  await answer("enter", no("bad_request"));
  assert.deepEqual(waiting(), [["enter", { channel: A, meta: { good: true } }]]);
  await answer("enter");

  assert.deepEqual([first.now, second.now], ["bad_request", "done"]);
});

for (const code of ["unavailable", "rate_limited"]) {
  test(`after ${code} it is asked for again when retry_after has passed, and the promise waits`, async () => {
    await up();
    const channel = presence.channel(A);
    const done = outcome(channel.enter());
    await turn();
    await answer("enter", no(code, { retry_after: 4 }));

    await pass(3999);
    assert.deepEqual([waiting(), done.now], [[], "pending"]);
    await pass(2001);
    await answer("enter");

    assert.equal(done.now, "done");
  });
}

test("while one operation waits for its retry, others are sent", async () => {
  await up();
  outcome(presence.channel(A).enter());
  await turn();
  await answer("enter", no("unavailable", { retry_after: 5 }));

  outcome(presence.channel(B).enter());
  await turn();

  assert.deepEqual(waiting(), [["enter", { channel: B }]]);
});

test("an update of unknown outcome is sent again, and the client still counts as present", async () => {
  await up();
  const channel = await entered(A);
  outcome(channel.update({ n: 2 }));
  await turn();

  await answer("update", no("unavailable", { retry_after: 1 }));
  assert.equal(channel.present, true);
  await pass(1500);

  assert.deepEqual(waiting(), [["update", { channel: A, meta: { n: 2 } }]]);
});

test("a leave asked for after an enter of unknown outcome is sent", async () => {
  await up();
  const channel = await entered(A);
  outcome(channel.leave());
  await turn();
  await answer("leave");
  outcome(channel.enter());
  await turn();
  await answer("enter", no("unavailable", { retry_after: 1 }));

  outcome(channel.leave());
  await pass(1500);

  assert.deepEqual(waiting(), [["leave", { channel: A }]]);
});

test("an acknowledgement that never comes is an unknown outcome: sent again", async () => {
  await up();
  const done = outcome(presence.channel(A).enter());
  await turn();

  await answer("enter", null);
  await pass(1500);
  await answer("enter");

  assert.equal(done.now, "done");
});

test("in a batch each operation has its own result", async () => {
  await up();
  const [first, second, third] = [presence.channel(A).enter(), presence.channel(B).enter(), presence.channel("/topic/3").enter()].map(outcome);
  await turn();

  await answer("batch", { ok: true, results: [{ ok: true }, no("channel_full"), no("rate_limited", { retry_after: 1 })] });
  assert.deepEqual([first.now, second.now, third.now], ["done", "channel_full", "pending"]);
  await pass(1500);

  assert.deepEqual(waiting(), [["enter", { channel: "/topic/3" }]]);
});

test("a batch refused as a whole is sent again one by one, so that only the bad one fails", async () => {
  await up();
  const bad = outcome(presence.channel("nonsense").enter());
  const good = outcome(presence.channel(A).enter());
  await turn();

  await answer("batch", no("bad_request"));
  await answer("enter", no("bad_request"));
  await answer("enter");

  assert.deepEqual([bad.now, good.now], ["bad_request", "done"]);
});

// ---- reconnecting

test("after a reconnect everything is asked for again in one batch, with meta and position", async () => {
  await up();
  const channel = await subscribed(A);
  outcome(channel.enter({ n: 1 }));
  await turn();
  await answer("enter");
  await subscribed(B, state(B, 8, []));
  socket.emit("diff", diff(A, 4, 3, { entered: [{ ...user("c"), revision: 4 }] }));

  await down();
  await up();

  assert.deepEqual(waiting(), [
    [
      "batch",
      {
        ops: [
          ["enter", { channel: A, meta: { n: 1 } }],
          ["subscribe", { channel: A, position: ["e1", 4] }],
          ["subscribe", { channel: B, position: ["e1", 8] }],
        ],
      },
    ],
  ]);
});

test("after a reconnect to a store that went back to an older snapshot, its state counts", async () => {
  await up();
  const channel = await subscribed();
  socket.emit("diff", diff(A, 4, 3, { entered: [{ ...user("c"), revision: 4 }] }));
  const heard = listen(channel);
  await down();
  await up();

  await answer("subscribe", { ok: true, state: state(A, 2, ["a"]) });
  socket.emit("diff", diff(A, 3, 2, { entered: [{ ...user("d"), revision: 3 }] }));

  assert.deepEqual([idsOf(channel), channel.count], [["a", "d"], 2]);
  assert.ok(heard.includes("leave c"));
});

test("what was left or unsubscribed and confirmed is not asked for after a reconnect", async () => {
  await up();
  const channel = await entered(A);
  outcome(channel.leave());
  await turn();
  await answer("leave");
  await down();
  await up();

  assert.deepEqual(waiting(), []);
});

test("what was in flight when the connection broke is sent again on the next", async () => {
  await up();
  const channel = await entered(A);
  const done = outcome(channel.leave());
  await turn();
  await down();

  await up();
  await answer("leave");

  assert.equal(done.now, "done");
});

test("an unsubscribe in flight when the connection breaks is done: the next has no subscriptions", async () => {
  await up();
  const channel = await subscribed();
  const done = outcome(channel.unsubscribe());
  await turn();

  await down();
  await up();

  assert.deepEqual([done.now, waiting()], ["done", []]);
});

test("an acknowledgement from the last connection says nothing about this one", async () => {
  await up();
  const channel = presence.channel(A);
  outcome(channel.enter());
  await turn();
  const [late] = socket.sent;
  await down();
  await up();

  late.acknowledge(null, { ok: true });
  await turn();

  assert.equal(channel.present, false);
  assert.equal(waiting().length, 1);
});

test("a retry that waits does not outlast its connection", async () => {
  await up();
  outcome(presence.channel(A).enter());
  await turn();
  await answer("enter", no("unavailable", { retry_after: 60 }));

  await down();
  await up();

  assert.deepEqual(waiting(), [["enter", { channel: A }]]);
});

test("packets that the client buffered are dropped with the connection", async () => {
  await up();
  socket.sendBuffer = ["an old leave"];

  await down();

  assert.deepEqual(socket.sendBuffer, []);
});

test("disconnected by the server, it connects again by itself after a moment", async () => {
  await up();
  let connects = 0;
  socket.on("stub:connect", () => (connects += 1));

  await down("io server disconnect");
  await pass(499);
  const early = connects;
  await pass(501);

  assert.deepEqual([early, connects], [0, 1]);
});

test("each time the server disconnects, it is back as soon", async () => {
  let connects = 0;
  socket.on("stub:connect", () => (connects += 1));

  for (let round = 1; round <= 5; round += 1) {
    await up();
    await down("io server disconnect");
    await pass(1000);
    assert.equal(connects, round);
  }
});

test("closed while it waits to connect again, it does not", async () => {
  await up();
  await down("io server disconnect");
  socket.on("stub:connect", () => assert.fail("connected again"));

  presence.close();

  tick(60000);
});

test("a broken transport is left to Socket.IO's own reconnecting", async () => {
  await up();
  let connects = 0;
  socket.on("stub:connect", () => (connects += 1));

  await down("transport close");
  socket.emit("connect_error", new Error("xhr poll error"));
  await pass(60000);

  assert.equal(connects, 0);
});

test("refused by the namespace, it tries again, less and less often", async () => {
  const times = [];
  const heard = [];
  presence.on("status", (status) => heard.push(status));
  socket.active = false;
  socket.on("stub:connect", () => {
    times.push(Date.now());
    socket.emit("connect_error", new Error("refused"));
  });

  socket.emit("connect_error", new Error("refused"));
  assert.equal(presence.status, "offline");
  for (let second = 0; second < 120; second += 1) await pass(1000);

  const waits = times.slice(1).map((time, index) => time - times[index]);
  assert.deepEqual(heard, ["offline"]);
  assert.ok(times[0] <= 1000, `first after ${times[0]} ms`);
  assert.deepEqual(waits, [...waits].sort((a, b) => a - b));
  assert.ok(Math.max(...waits) <= 30000 && waits.at(-1) >= 15000, waits.join());
});

test("refused by the namespace, it says so once in the console, with the namespace's name", async (t) => {
  const warn = t.mock.method(console, "warn", () => {});
  socket.active = false;

  for (let time = 0; time < 3; time += 1) {
    socket.emit("connect_error", new Error("Unable to connect"));
    await pass(1000);
  }

  assert.equal(warn.mock.callCount(), 1);
  assert.match(warn.mock.calls[0].arguments[0], /Unable to connect.*\/presence/);
});

// ---- healing

test("it beats when the Engine.IO ping arrives, with the positions of its subscriptions", async () => {
  await up();
  await subscribed(A);
  await subscribed(B, state(B, 0, [], { epoch: null }));
  await entered("/topic/3");

  socket.io.emit("ping");

  assert.deepEqual(waiting(), [["heartbeat", { positions: { [A]: ["e1", 3], [B]: [null, 0] } }]]);
});

test("it beats by itself where no ping comes for a heartbeat interval", async () => {
  await up();
  socket.emit("hello", { client_id: "c", user_id: null, heartbeat_interval: 7 });
  await pass(6999);
  const early = waiting().length;
  await pass(1);
  await pass(7000);

  assert.deepEqual([early, waiting().length], [0, 2]);
});

test("a ping puts the timer off, and within a second of a beat there is none", async () => {
  await up();
  socket.emit("hello", { client_id: "c", user_id: null, heartbeat_interval: 10 });
  await pass(9500);
  socket.io.emit("ping");
  socket.io.emit("ping");
  await pass(9500);

  assert.equal(waiting().length, 1);
});

test("it does not beat while offline or closed", async () => {
  socket.io.emit("ping");
  await up();
  await down();
  await pass(60000);
  socket.io.emit("ping");
  await up();
  presence.close();
  socket.io.emit("ping");
  await pass(60000);

  assert.deepEqual(packets(), []);
});

test("of more than 50 subscriptions each has its turn in a heartbeat", async () => {
  for (let number = 0; number < 70; number += 1) outcome(presence.channel(`/topic/${number}`, { initial: state(`/topic/${number}`, 1, []) }).subscribe());
  await up();
  await answer("batch", ok(...Array(70).fill({ state: null })));

  for (let beat = 0; beat < 2; beat += 1) {
    socket.io.emit("ping");
    await pass(2000);
  }

  const [first, second] = waiting().map(([, { positions }]) => Object.keys(positions));
  assert.equal(first.length, 50);
  assert.equal(new Set([...first, ...second]).size, 70);
});

test("of stale channels it asks for the states, in one request", async () => {
  await up();
  const channel = await subscribed(A);
  await subscribed(B, state(B, 1, []));
  socket.io.emit("ping");

  await answer("heartbeat", { ok: true, stale: [A, B], lost: [] });
  assert.deepEqual(waiting(), [["state", { channels: [A, B] }]]);
  await answer("state", { ok: true, states: { [A]: state(A, 9, ["z"]), [B]: null } });

  assert.deepEqual(idsOf(channel), ["z"]);
  assert.deepEqual(waiting(), []);
});

test("where the states of several channels fail together, each is asked for by itself", async () => {
  await up();
  await subscribed(A);
  const channel = await subscribed(B, state(B, 1, []));
  socket.io.emit("ping");
  await answer("heartbeat", { ok: true, stale: [A, B], lost: [] });

  await answer("state", no("unavailable", { retry_after: 1 }));
  await pass(1500);
  await answer("state", no("unavailable", { retry_after: 1 }));
  await answer("state", { ok: true, states: { [B]: state(B, 9, ["z"]) } });

  assert.deepEqual(idsOf(channel), ["z"]);
});

test("a channel that was left is not lost", async () => {
  await up();
  const channel = await subscribed();
  outcome(channel.enter());
  await turn();
  await answer("enter");
  outcome(channel.leave());
  await turn();
  await answer("leave");
  socket.io.emit("ping");

  await answer("heartbeat", { ok: true, stale: [], lost: [A] });

  assert.deepEqual(waiting(), []);
});

test("lost channels are entered again with their meta, others not", async () => {
  await up();
  const channel = await entered(A, { n: 1 });
  await subscribed(B);
  socket.io.emit("ping");

  await answer("heartbeat", { ok: true, stale: [], lost: [A, B, "/unknown/1"] });

  assert.deepEqual(waiting(), [["enter", { channel: A, meta: { n: 1 } }]]);
  assert.equal(channel.present, false);
});

test("a revision that is missing for long is asked for after one to three seconds", async () => {
  await up();
  await subscribed();
  socket.emit("diff", diff(A, 5, 2));

  await pass(1999);
  assert.deepEqual(waiting(), []);
  await pass(1);

  assert.deepEqual(waiting(), [["state", { channels: [A] }]]);
});

test("the wait for a missing revision is between one and three seconds, at random", async () => {
  for (const [random, wait] of [[0, 1000], [0.999, 2998]]) {
    mock.method(Math, "random", () => random);
    await up();
    const channel = await subscribed();
    socket.emit("diff", diff(A, 5, 2));
    await pass(wait - 1);
    const early = waiting().length;
    await pass(1);
    assert.deepEqual([early, waiting().length], [0, 1]);
    outcome(channel.unsubscribe());
    await down();
  }
});

test("a revision that arrives in time is not asked for", async () => {
  await up();
  await subscribed();
  socket.emit("diff", diff(A, 5, 2));
  await pass(900);

  socket.emit("diff", diff(A, 4, 2));
  await pass(60000 - 900);

  assert.deepEqual(waiting().filter(([event]) => event === "state"), []);
});

test("each missing revision has its own time", async () => {
  await up();
  await subscribed();
  socket.emit("diff", diff(A, 5, 2));
  await pass(1900);
  socket.emit("diff", diff(A, 7, 2));
  socket.emit("diff", diff(A, 4, 2));

  await pass(1900);
  assert.deepEqual(waiting(), []);
  await pass(100);

  assert.deepEqual(waiting(), [["state", { channels: [A] }]]);
});

test("a diff of another epoch asks for the state at once, then at most once a second", async () => {
  await up();
  const channel = await subscribed();
  socket.emit("diff", diff(A, 1, 1, { entered: [{ ...user("x"), revision: 1 }] }, { epoch: "e2" }));
  await turn();
  assert.deepEqual([waiting(), idsOf(channel)], [[["state", { channels: [A] }]], ["a", "b"]]);
  await answer("state", { ok: true, states: { [A]: null } });

  socket.emit("diff", diff(A, 2, 1, {}, { epoch: "e2" }));
  await pass(999);
  assert.deepEqual(waiting(), []);
  await pass(1);
  await answer("state", { ok: true, states: { [A]: state(A, 2, ["x"], { epoch: "e2" }) } });

  assert.deepEqual(idsOf(channel), ["x"]);
  await pass(5000);
  assert.deepEqual(waiting(), []);
});

test("a state that heals what is being waited for cancels the request", async () => {
  await up();
  await subscribed();
  outcome(presence.channel(B).enter());
  await turn();
  socket.emit("diff", diff(A, 5, 2));
  await pass(3000);

  socket.emit("state", state(A, 5, ["a", "b"]));
  await answer("enter");

  assert.deepEqual(waiting(), []);
});

test("an unsubscribed channel asks for no state", async () => {
  await up();
  const channel = await subscribed();
  await entered();
  socket.emit("diff", diff(A, 5, 2));
  outcome(channel.unsubscribe());
  await turn();
  await answer("unsubscribe");

  await pass(5000);

  assert.deepEqual(waiting(), []);
});

test("an evicted channel asks for no state", async () => {
  await up();
  const channel = await subscribed();
  socket.emit("diff", diff(A, 5, 2));
  socket.emit("evicted", { channel: A, reason: "evicted" });
  outcome(channel.enter());
  await turn();
  await answer("enter");

  await pass(5000);

  assert.deepEqual(waiting(), []);
});

test("a gap does not outlast its connection: the subscription's position tells", async () => {
  await up();
  await subscribed();
  socket.emit("diff", diff(A, 5, 2));
  await down();
  await pass(5000);

  await up();

  assert.deepEqual(waiting(), [["subscribe", { channel: A, position: ["e1", 3] }]]);
});

test("later diffs do not put the request for a missing revision off", async () => {
  await up();
  await subscribed();
  for (let revision = 5; revision < 9; revision += 1) {
    socket.emit("diff", diff(A, revision, 2));
    await pass(600);
  }

  assert.deepEqual(waiting(), [["state", { channels: [A] }]]);
});

test("a state that leaves a gap cancels no request", async () => {
  await up();
  await subscribed();
  outcome(presence.channel(B).enter());
  await turn();
  socket.emit("diff", diff(A, 6, 2));
  await pass(3000);

  socket.emit("state", state(A, 4, ["a", "b"]));
  await answer("enter");

  assert.deepEqual(waiting(), [["state", { channels: [A] }]]);
});

// ---- evicted

test("evicted: out, unsubscribed, told so, and not back after a reconnect", async () => {
  await up();
  const channel = await subscribed();
  outcome(channel.enter());
  await turn();
  await answer("enter");
  const heard = listen(channel);

  socket.emit("evicted", { channel: A, reason: "forbidden" });
  assert.deepEqual([heard, channel.present], [["evicted forbidden", "change"], false]);
  await down();
  await up();

  assert.deepEqual([channel.users, channel.count, waiting()], [[], 0, []]);
});

test("after evicted it enters again when asked to", async () => {
  await up();
  const channel = await entered();
  socket.emit("evicted", { channel: A, reason: "evicted" });

  outcome(channel.enter());
  await turn();

  assert.deepEqual(waiting(), [["enter", { channel: A }]]);
});

test("evicted while entering: the promise rejects, and what may have been done since is undone", async () => {
  await up();
  const channel = presence.channel(A);
  const done = outcome(channel.enter());
  await turn();

  socket.emit("evicted", { channel: A, reason: "evicted" });
  await answer("enter");

  assert.deepEqual([done.now, channel.present], ["evicted", false]);
  assert.deepEqual(waiting(), [["leave", { channel: A }]]);
});

test("evicted before it was sent: the promise rejects, nothing is sent", async () => {
  await up();
  outcome(presence.channel(B).enter());
  await turn();
  const channel = presence.channel(A);
  const done = outcome(channel.enter());

  socket.emit("evicted", { channel: A, reason: "evicted" });
  await answer("enter");

  assert.deepEqual([done.now, waiting()], ["evicted", []]);
});

test("evicted while leaving: that is done, too", async () => {
  await up();
  const channel = await entered();
  const done = outcome(channel.leave());
  await turn();

  socket.emit("evicted", { channel: A, reason: "cleared" });
  await answer("leave");

  assert.deepEqual([done.now, waiting()], ["done", []]);
});

test("an evicted handle holds the channel no more and hears nothing more", async () => {
  await up();
  const first = await subscribed();
  outcome(first.enter());
  await turn();
  await answer("enter");
  socket.emit("evicted", { channel: A, reason: "evicted" });
  const second = await subscribed();
  outcome(second.enter());
  await turn();
  await answer("enter");
  const heard = listen(first);

  socket.emit("diff", diff(A, 4, 2, {}, { anonymous: 1 }));
  outcome(second.leave());
  await turn();

  assert.deepEqual([heard, waiting()], [[], [["leave", { channel: A }]]]);
});

test("messages for channels that nobody holds are ignored", async () => {
  await up();

  for (const event of ["diff", "state", "evicted"]) socket.emit(event, { ...state("/x/y", 1, []), revisions: [[1, 1]] });

  assert.deepEqual(packets(), []);
});

// ---- close

test("an event of the app's own is heard until it is turned off, and not one of presence's own", () => {
  const heard = [];
  const off = presence.on("ping", (data) => heard.push(data));
  socket.up();
  socket.emit("ping", { n: 1 });

  off();
  socket.emit("ping", { n: 2 });

  assert.deepEqual(heard, [{ n: 1 }]);
  assert.throws(() => presence.on("diff", () => {}), /no event "diff"/);
});

test("close leaves everything at once: promises reject, nothing is heard or sent any more", async () => {
  await up();
  const channel = await subscribed();
  const done = outcome(channel.enter());
  await turn();
  await answer("enter");
  const late = outcome(channel.update({ n: 1 }));
  await turn();
  const heard = listen(channel);
  let closed = 0;
  socket.disconnect = () => (closed += 1);

  presence.close();
  presence.close();
  socket.sent.at(-1).acknowledge(null, { ok: true });
  socket.emit("diff", diff(A, 4, 1));
  await pass(60000);

  assert.deepEqual([closed, done.now, late.now, heard, presence.status, channel.present], [1, "done", "closed", [], "offline", false]);
  assert.equal(packets().length, 3);
});

test("who waits for leaving when it closes has left", async () => {
  await up();
  const channel = await entered();
  const done = outcome(channel.leave());
  await turn();

  presence.close();
  await turn();

  assert.equal(done.now, "done");
});

test("after close, enter and subscribe reject while leave and unsubscribe are done already", async () => {
  const channel = presence.channel(A);
  presence.close();

  await assert.rejects(channel.enter(), { code: "closed" });
  await assert.rejects(channel.subscribe(), { code: "closed" });
  await channel.leave();
  await channel.unsubscribe();
});

test("close takes its listeners off, those on the manager that the app may share, too", () => {
  presence.close();

  assert.equal(socket.io.listenerCount("ping"), 0);
  assert.deepEqual(socket.eventNames(), []);
});
