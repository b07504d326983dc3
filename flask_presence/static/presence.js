/**
 * FlaskPresence: who is here, live in the browser.
 *
 * The heart is two pure functions, `applyState` and `applyDiff`: they fold what the server sends into what is known of a
 * channel. Around it, a `Slot` keeps what was asked for last apart from what the server confirmed, a `SharedChannel` joins
 * the handles of one channel, and `Presence` owns the connection. `elements.js` beside it is its first user.
 */
(() => {
  "use strict";
  if (globalThis.FlaskPresence) return; // loaded twice, or as a script and as a module: one copy serves the page

  const MAX_OPS = 100; // in one batch
  const MAX_NAMES = 50; // in one `state` request, and positions in one heartbeat
  const MAX_KEPT_DIFFS = 256; // while a state is awaited; what is dropped shows as a gap
  // A page that goes away while it polls tells nobody: its user would stay until the ping runs out.
  const TRANSPORTS = { transports: ["websocket", "polling"], tryAllTransports: true };
  const MAX_LEFT = 1000; // tombstones beyond twice the users present
  const ACK_TIMEOUT = 10000;
  const STATE_PAUSE = 1000; // a channel's state is asked for at most once in that time
  const BEAT_PAUSE = 1000; // the server ignores heartbeats that come faster
  const MAX_RECONNECT_DELAY = 30000;
  const HEARTBEAT_INTERVAL = 25; // until `hello` says otherwise

  // ---- The fold: what is known of a channel -------------------------------------------------------------------------

  /**
   * `entries` maps a user's id to `{revision, user, since}`: the revision of their last entry, the user or `null` once
   * they left, and the revision they entered at, `null` where it was never seen. `covered` are the revisions known, as
   * sorted ranges that do not touch: the first ends at the position, a second one means that some are missing.
   */
  function emptyFold() {
    return {
      synced: false,
      epoch: null,
      floor: 0,
      covered: [],
      entries: new Map(),
      count: 0,
      anonymous: 0,
      countOnly: false,
      needsState: false,
      kept: [],
    };
  }

  function applyState(fold, state) {
    const continues = fold.synced && fold.epoch === state.epoch;
    if (continues && state.revision < fold.floor) return fold;

    const covered = continues ? fold.covered : [];
    const counts = state.revision >= highest(covered) ? state : fold;
    const next = {
      synced: true,
      epoch: state.epoch,
      floor: state.revision,
      covered: merge([[0, state.revision], ...covered]),
      entries: stateEntries(state, continues ? fold.entries : new Map()),
      count: counts.count,
      anonymous: counts.anonymous,
      countOnly: state.count_only === true,
      needsState: false,
      kept: [],
    };
    // A kept diff that does not fit this state either asks for one more, and is not kept for a third.
    return { ...fold.kept.reduce(applyDiff, next), kept: [] };
  }

  function applyDiff(fold, diff) {
    if (!fold.synced) return keepDiff(fold, diff);
    if (!continuesEpoch(fold, diff)) return { ...keepDiff(fold, diff), needsState: true };

    const counts = highest(diff.revisions) > highest(fold.covered) ? diff : fold;
    return forgetLeft({
      ...fold,
      epoch: diff.epoch,
      covered: merge([...fold.covered, ...diff.revisions]),
      entries: diffEntries(diff, fold),
      count: counts.count,
      anonymous: counts.anonymous,
    });
  }

  function usersOf(fold) {
    if (fold.countOnly) return [];
    return [...fold.entries.values()]
      .filter((entry) => entry.user)
      .sort((a, b) => placeOf(a) - placeOf(b) || a.turn - b.turn)
      .map((entry) => entry.user);
  }

  function positionOf(fold) {
    return fold.synced ? [fold.epoch, fold.covered[0][1]] : null;
  }

  /** Of a position that was reached, a state is behind only where the store went back to an older snapshot. */
  function isBehind(state, position) {
    return position !== null && state.epoch === position[0] && state.revision < position[1];
  }

  function hasGap(fold) {
    return fold.covered.length > 1;
  }

  function stateEntries(state, older) {
    const entries = new Map();
    (state.users || []).forEach((user, turn) => {
      entries.set(user.id, { revision: state.revision, user: plainUser(user), since: state.revision, turn });
    });
    for (const [id, entry] of older) {
      if (entry.revision <= state.revision) continue;
      const { since, turn } = entry.since > state.revision ? entry : entries.get(id) || { since: null, turn: 0 };
      entries.set(id, { ...entry, since, turn });
    }
    return entries;
  }

  function diffEntries(diff, { entries: before, floor }) {
    const entries = new Map(before);
    const put = (change, user, place) => {
      const known = entries.get(change.id);
      if (change.revision <= Math.max(floor, known ? known.revision : 0)) return;
      entries.set(change.id, { revision: change.revision, user, ...place(known) });
    };
    const unknown = { since: null, turn: 0 };
    const entered = diff.entered || [];
    const places = placesOf(entered);
    entered.forEach((change, turn) => {
      const place = places[turn];
      const wasHere = (known) => known && known.user && place.since <= known.since;
      put(change, plainUser(change), (known) => (wasHere(known) ? placeIn(known) : place));
    });
    for (const change of diff.updated || []) {
      put(change, plainUser(change), (known) => (known && known.user ? placeIn(known) : unknown));
    }
    for (const change of diff.left || []) put(change, null, () => unknown);
    return entries;
  }

  function placeIn({ since, turn }) {
    return { since, turn };
  }

  /** The list is in the order of entering, though an entry's own revision may be that of a later update. */
  function placesOf(entered) {
    const places = [];
    let since = Infinity;
    for (let turn = entered.length - 1; turn >= 0; turn -= 1) {
      since = Math.min(since, entered[turn].revision);
      places[turn] = { since, turn };
    }
    return places;
  }

  /** Late entries below the position can change nothing any more, so a long-lived page need not remember all who left. */
  function forgetLeft(fold) {
    if (fold.entries.size <= MAX_LEFT + 2 * fold.count) return fold;
    const floor = positionOf(fold)[1];
    const lasting = [...fold.entries].filter(([, entry]) => entry.user || entry.revision > floor);
    return { ...fold, floor, entries: new Map(lasting) };
  }

  function keepDiff(fold, diff) {
    return { ...fold, kept: [...fold.kept, diff].slice(-MAX_KEPT_DIFFS) };
  }

  function continuesEpoch(fold, diff) {
    if (fold.epoch !== null) return diff.epoch === fold.epoch;
    return Math.min(...diff.revisions.map(([from]) => from)) === 1;
  }

  function merge(ranges) {
    const merged = [];
    for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
      const last = merged[merged.length - 1];
      if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
      else merged.push([from, to]);
    }
    return merged;
  }

  function highest(ranges) {
    return Math.max(0, ...ranges.map(([, to]) => to));
  }

  function placeOf(entry) {
    return entry.since === null ? entry.revision : entry.since;
  }

  function plainUser({ id, info, meta }) {
    return Object.freeze({ id, info: info || {}, meta: meta || {} });
  }

  // ---- What came and went between two folds --------------------------------------------------------------------------------

  /** A channel that turns count-only hides its users, and shows them when it turns back: nobody enters or leaves. */
  function compareFolds(before, after) {
    const changes = { entered: [], updated: [], left: [], replaced: false };
    if (before.countOnly || after.countOnly) return changes;
    for (const [id, { user }] of after.entries) {
      const { user: old } = before.entries.get(id) || { user: null };
      if (user === old) continue;
      if (!old) changes.entered.push(user);
      else if (!user) changes.left.push(old);
      else if (!same(user, old)) changes.updated.push(user);
      else changes.replaced = true;
    }
    for (const [id, { user }] of before.entries) if (user && !after.entries.has(id)) changes.left.push(user);
    return changes;
  }

  function looksDifferent(before, after, { entered, updated, left, replaced }) {
    if (entered.length || updated.length || left.length) return true;
    if (["synced", "count", "anonymous", "countOnly"].some((key) => before[key] !== after[key])) return true;
    return replaced && !same(idsOf(before), idsOf(after));
  }

  function idsOf(fold) {
    return usersOf(fold).map((user) => user.id);
  }

  function same(a, b) {
    if (a === b) return true;
    if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
    if (Array.isArray(a) !== Array.isArray(b)) return false;
    const keys = Object.keys(a);
    if (keys.length !== Object.keys(b).length) return false;
    return keys.every((key) => Object.prototype.hasOwnProperty.call(b, key) && same(a[key], b[key]));
  }

  // ---- Errors and callbacks --------------------------------------------------------------------------------------------

  function failure(code, message) {
    return Object.assign(new Error(message || code), { name: "PresenceError", code });
  }

  function isTransient(result) {
    return !result.error || result.error === "unavailable" || result.error === "rate_limited";
  }

  function retryDelay({ retry_after: seconds }) {
    return 1000 * (seconds || 1) * (1 + Math.random() / 2);
  }

  function report(error) {
    if (typeof reportError === "function") reportError(error);
    else console.error(error);
  }

  class Emitter {
    constructor(events) {
      this._callbacks = new Map(events.map((event) => [event, new Set()]));
    }

    on(event, callback) {
      const callbacks = this._callbacks.get(event);
      if (!callbacks) throw new TypeError(`no event "${event}": one of ${[...this._callbacks.keys()].join(", ")}`);
      const entry = { callback };
      callbacks.add(entry);
      return () => callbacks.delete(entry);
    }

    _emit(event, ...values) {
      for (const { callback } of [...this._callbacks.get(event)]) {
        try {
          callback(...values);
        } catch (error) {
          report(error);
        }
      }
    }
  }

  // ---- Slots: what was asked for last, and what the server confirmed -----------------------------------------------------

  const OFF = Object.freeze({ on: false });

  class Slot {
    /** `initial` is what holds on a fresh connection, `null` where that is not known. */
    constructor(channel, initial) {
      Object.assign(this, { channel, initial, wanted: initial, confirmed: initial });
      Object.assign(this, { sent: null, waiters: [], pause: null, alone: false });
    }

    get settled() {
      return !this.sent && (!this.wanted || same(this.wanted, this.confirmed));
    }

    get ready() {
      return !this.settled && !this.sent && !this.pause;
    }

    get on() {
      return Boolean(this.wanted && this.wanted.on);
    }

    ask(value) {
      this.wanted = value;
      this.channel.presence._schedule();
      return new Promise((resolve, reject) => {
        this.waiters.push({ resolve, reject });
        this._settle();
      });
    }

    take() {
      this.sent = { value: this.wanted, waiters: this.waiters };
      this.waiters = [];
    }

    accept() {
      const { value, waiters } = this.sent;
      Object.assign(this, { sent: null, confirmed: value, alone: false });
      for (const { resolve } of waiters) resolve();
      this._settle();
    }

    /** A final no. What was asked for is dropped, unless something else was asked for since. */
    refuse(error) {
      const { value, waiters } = this.sent;
      Object.assign(this, { sent: null, alone: false });
      for (const { reject } of waiters) reject(error);
      if (!same(this.wanted, value)) return;
      this.wanted = this.confirmed;
      this._rejectAll(error);
    }

    /** It may or may not have happened: ask again. */
    putBack() {
      const { value, waiters } = this.sent;
      const staysOn = value && value.on && this.confirmed && this.confirmed.on;
      if (!staysOn) this.confirmed = null;
      this.waiters = [...waiters, ...this.waiters];
      this.sent = null;
    }

    /** The server took the client out. A request under way may have been done after that: undo it. */
    drop(error) {
      if (!this.on) return;
      if (this.sent) this.waiters.push(...this.sent.waiters);
      this._rejectAll(error);
      this.wanted = this.sent ? OFF : this.initial;
      this.sent = this.sent && { value: null, waiters: [] };
      this.confirmed = this.initial;
    }

    disconnected() {
      if (this.sent) this.putBack();
      this.resume();
      const isOff = this.confirmed && !this.confirmed.on;
      if (!isOff) this.confirmed = this.initial;
      this._settle();
    }

    hold(milliseconds) {
      this.pause = setTimeout(() => {
        this.pause = null;
        this.channel.presence._schedule();
      }, milliseconds);
    }

    resume() {
      clearTimeout(this.pause);
      this.pause = null;
    }

    /** Whoever waits for leaving has got what they wanted. */
    close(error) {
      this.resume();
      if (this.sent) this.putBack();
      if (this.on) this._rejectAll(error);
      this.wanted = this.confirmed = this.initial;
      this._settle();
    }

    _settle() {
      if (this.settled) for (const { resolve } of this.waiters.splice(0)) resolve();
    }

    _rejectAll(error) {
      for (const { reject } of this.waiters.splice(0)) reject(error);
    }
  }

  class EntrySlot extends Slot {
    constructor(channel) {
      super(channel, null); // on a fresh connection, the dropped one may still count
    }

    get present() {
      return Boolean(this.confirmed && this.confirmed.on);
    }

    call() {
      const channel = this.channel.name;
      if (!this.on) return ["leave", { channel }];
      const { meta } = this.wanted;
      return [this.present ? "update" : "enter", meta === undefined ? { channel } : { channel, meta }];
    }

    lost() {
      if (this.on && !this.sent) this.confirmed = null;
    }

    accept() {
      super.accept();
      this.channel.notePresent();
    }

    refuse(error) {
      if (error.code === "not_present" && this.on) {
        this.confirmed = null;
        this.putBack();
        return this.channel.notePresent();
      }
      super.refuse(error);
      this.channel.refused(this.channel.entered, this, error);
    }
  }

  class SubscriptionSlot extends Slot {
    constructor(channel) {
      super(channel, OFF);
    }

    call() {
      const channel = this.channel.name;
      if (!this.on) return ["unsubscribe", { channel }];
      this.asked = positionOf(this.channel.fold);
      return ["subscribe", this.asked ? { channel, position: this.asked } : { channel }];
    }

    accept(result) {
      super.accept();
      const { state } = result;
      if (state && isBehind(state, this.asked)) this.channel.takeState(state, emptyFold());
      else if (state) this.channel.takeState(state);
    }

    refuse(error) {
      const { handles, fold } = this.channel;
      super.refuse(error);
      if (!this.on) this.channel.blank();
      this.channel.refused(this.channel.subscribed, this, error);
      if (!this.on && fold.synced) emitTo(handles, "change");
    }
  }

  /** A request for the state. Nobody waits for it, and a refusal is no news: the subscription's own answers tell. */
  class RefreshSlot extends Slot {
    constructor(channel) {
      super(channel, null);
      this.number = 0;
    }

    want() {
      this.number += 1;
      this.wanted = { on: true, number: this.number };
      this.channel.presence._schedule();
    }

    cancel() {
      if (!this.sent) this.wanted = this.confirmed;
    }

    call() {
      return ["state", { channels: [this.channel.name] }];
    }

    accept(result) {
      super.accept();
      this.hold(STATE_PAUSE);
      const state = result.states && result.states[this.channel.name];
      if (state) this.channel.takeState(state);
    }
  }

  // ---- Channels -----------------------------------------------------------------------------------------------------------

  /** What all handles of one channel have in common. */
  class SharedChannel {
    constructor(presence, name) {
      this.presence = presence;
      this.name = name;
      this.entered = new Set(); // handles
      this.subscribed = new Set();
      this.entry = new EntrySlot(this);
      this.subscription = new SubscriptionSlot(this);
      this.refresh = new RefreshSlot(this);
      this.present = false;
      this.missing = null;
      this.gapTimer = null;
      this.fold = emptyFold();
      this.usersCache = null;
    }

    get users() {
      this.usersCache = this.usersCache || Object.freeze(usersOf(this.fold));
      return this.usersCache;
    }

    /** Entering goes before subscribing, so that the state already has this client's user. */
    get slots() {
      return [this.entry, this.subscription, this.refresh];
    }

    get handles() {
      return new Set([...this.entered, ...this.subscribed]);
    }

    get idle() {
      return !this.handles.size && this.slots.every((slot) => slot.settled);
    }

    /** A state that came with the page; what is live knows better. */
    offer(state) {
      if (!state || state.channel !== this.name) return;
      if (this.subscription.on && this.fold.synced) return;
      this._become(applyState(this.fold, state));
    }

    takeState(state, known = this.fold) {
      if (!this.subscription.on) return;
      const fold = applyState(known, state);
      if (!fold.needsState && !hasGap(fold)) this.refresh.cancel();
      this._become(fold, "sync");
    }

    takeDiff(diff) {
      if (this.subscription.on) this._become(applyDiff(this.fold, diff));
    }

    evicted({ channel, reason }) {
      const { handles } = this;
      this.forget(failure("evicted", `${channel}: ${reason}`));
      this.blank();
      this.present = false;
      emitTo(handles, "evicted", { channel, reason });
      emitTo(handles, "change");
    }

    /** What this client may not see any more, it does not go on showing. */
    blank() {
      this.fold = emptyFold();
      this.usersCache = null;
    }

    /** A refused slot takes the wishes of its handles along. */
    refused(wishes, slot, error) {
      const handles = [...wishes];
      if (!slot.on) wishes.clear();
      emitTo(handles, "error", error);
    }

    notePresent() {
      if (this.present === this.entry.present) return;
      this.present = this.entry.present;
      emitTo(this.handles, "change");
    }

    disconnected() {
      for (const slot of this.slots) slot.disconnected();
      this.quiet();
      this.notePresent();
    }

    quiet() {
      clearTimeout(this.gapTimer);
      this.missing = null;
      this.refresh.cancel();
    }

    forget(error) {
      this.entered.clear();
      this.subscribed.clear();
      this.entry.drop(error);
      this.subscription.drop(error);
      this.quiet();
    }

    close(error) {
      this.quiet();
      for (const slot of this.slots) slot.close(error);
      this.present = false;
    }

    _become(fold, news) {
      const before = this.fold;
      this.fold = fold;
      this.usersCache = null;
      if (fold.needsState) this.refresh.want();
      this._watchGap();

      const changes = compareFolds(before, fold);
      for (const user of changes.left) emitTo(this.subscribed, "leave", user);
      for (const user of changes.entered) emitTo(this.subscribed, "enter", user);
      for (const user of changes.updated) emitTo(this.subscribed, "update", user);
      if (news) emitTo(this.subscribed, news);
      if (looksDifferent(before, fold, changes)) emitTo(this.subscribed, "change");
    }

    /** One timer for the first missing revision; at random, or all subscribers would ask at once. */
    _watchGap() {
      const missing = hasGap(this.fold) ? positionOf(this.fold).join() : null;
      if (missing === this.missing) return;
      clearTimeout(this.gapTimer);
      this.missing = missing;
      if (missing === null) return;
      this.gapTimer = setTimeout(() => this.refresh.want(), 1000 + 2000 * Math.random());
    }
  }

  function emitTo(handles, ...event) {
    for (const handle of [...handles]) handle._emit(...event);
  }

  /** One user's hold on a channel: it leaves and unsubscribes only where it is the last. */
  class Channel extends Emitter {
    constructor(shared) {
      super(["change", "enter", "leave", "update", "sync", "evicted", "error"]);
      this._own = shared;
    }

    /** The one in use, which another handle may have brought. */
    get _shared() {
      const { presence, name } = this._own;
      return presence._channels.get(name) || this._own;
    }

    get name() {
      return this._own.name;
    }

    get users() {
      return this._shared.users;
    }

    get count() {
      return this._shared.fold.count;
    }

    get anonymous() {
      return this._shared.fold.anonymous;
    }

    get countOnly() {
      return this._shared.fold.countOnly;
    }

    get present() {
      return this._shared.present;
    }

    get synced() {
      return this._shared.fold.synced;
    }

    async subscribe() {
      const shared = this._join();
      shared.subscribed.add(this);
      await shared.subscription.ask({ on: true });
    }

    async unsubscribe() {
      const shared = this._shared;
      shared.subscribed.delete(this);
      if (shared.subscribed.size || shared.presence._closed) return;
      shared.quiet();
      await this._join().subscription.ask(OFF);
    }

    async enter(meta) {
      const given = meta === undefined ? undefined : copyOf(meta);
      const shared = this._join();
      shared.entered.add(this);
      const kept = shared.entry.on ? shared.entry.wanted : { on: true };
      await shared.entry.ask(given === undefined ? kept : { on: true, meta: given });
    }

    async update(meta) {
      const given = copyOf(meta === undefined ? null : meta);
      const { entry } = this._join();
      if (!entry.on) throw failure("not_present", `${this.name}: enter before you update`);
      await entry.ask({ on: true, meta: given });
    }

    async leave() {
      const shared = this._shared;
      shared.entered.delete(this);
      if (shared.entered.size || shared.presence._closed) return;
      await this._join().entry.ask(OFF);
    }

    _join() {
      const { presence, name } = this._own;
      if (presence._closed) throw failure("closed", "this presence connection has been closed");
      this._own = this._shared;
      presence._channels.set(name, this._own);
      return this._own;
    }
  }

  /** The caller may go on changing theirs. */
  function copyOf(meta) {
    try {
      return JSON.parse(JSON.stringify(meta));
    } catch (error) {
      throw failure("bad_request", `meta is no JSON: ${error.message}`);
    }
  }

  // ---- The connection --------------------------------------------------------------------------------------------------------

  const WIRE_EVENTS = new Set(["connect", "connect_error", "disconnect", "hello", "diff", "state", "evicted"]);

  class Presence extends Emitter {
    constructor({ io, url, path, namespace, auth }) {
      super(["status"]);
      this.status = "connecting";
      this.clientId = null;
      this.userId = null;
      this._channels = new Map(); // name -> SharedChannel, those in use
      this._closed = false;
      this._namespace = namespace;
      this._busy = false;
      this._scheduled = false;
      this._session = 0;
      this._interval = HEARTBEAT_INTERVAL;
      this._lastBeat = null;
      this._beatTimer = null;
      this._turn = 0;
      this._attempts = 0;
      this._reconnectTimer = null;
      this._beat = this._beat.bind(this);
      this._socket = io((url || "").replace(/\/+$/, "") + namespace, { path, ...TRANSPORTS, ...(auth === undefined ? {} : { auth }) });
      this._listen();
    }

    /** Hears `status`, or an event that the app's server sends with `channel.emit`. */
    on(event, callback) {
      if (event === "status" || WIRE_EVENTS.has(event)) return super.on(event, callback);
      this._socket.on(event, callback);
      return () => this._socket.off(event, callback);
    }

    channel(name, { initial } = {}) {
      const shared = this._channels.get(name) || new SharedChannel(this, name);
      shared.offer(initial);
      return new Channel(shared);
    }

    close() {
      if (this._closed) return;
      this._closed = true;
      this._session += 1;
      clearTimeout(this._beatTimer);
      clearTimeout(this._reconnectTimer);
      for (const channel of this._channels.values()) channel.close(failure("closed", "the presence connection was closed"));
      this._socket.io.off("ping", this._beat); // the manager may be shared with the app's own sockets
      this._socket.off();
      this._socket.disconnect();
      this._setStatus("offline");
    }

    _listen() {
      const socket = this._socket;
      const routed = (method) => (payload) => {
        const channel = this._channels.get(payload.channel);
        if (channel) channel[method](payload);
      };
      socket.on("connect", () => this._connected());
      socket.on("disconnect", (reason) => this._disconnected(reason));
      socket.on("connect_error", (error) => this._refused(error));
      socket.on("hello", (hello) => this._greeted(hello));
      socket.on("diff", routed("takeDiff"));
      socket.on("state", routed("takeState"));
      socket.on("evicted", routed("evicted"));
      // Timers of hidden pages are throttled, network events are not.
      socket.io.on("ping", this._beat);
    }

    _connected() {
      this._attempts = 0;
      this._setStatus("live");
      this._flush();
    }

    _greeted({ client_id: clientId, user_id: userId, heartbeat_interval: interval }) {
      this.clientId = clientId;
      this.userId = userId;
      this._interval = interval || HEARTBEAT_INTERVAL;
      this._armBeat();
    }

    _disconnected(reason) {
      this._session += 1;
      this._busy = false;
      this.clientId = null;
      // Packets buffered by a dying connection would race with what is sent again on the next one.
      this._socket.sendBuffer = [];
      this._setStatus("offline");
      for (const channel of this._channels.values()) channel.disconnected();
      if (reason === "io server disconnect") this._reconnect();
    }

    /** Socket.IO tries again by itself where the network failed, but not where the namespace said no. */
    _refused(error) {
      this._setStatus("offline");
      if (this._socket.active) return;
      if (this._attempts === 0) {
        console.warn(`Presence was refused (${error.message}): the server's log says why, or has no namespace ${this._namespace}.`);
      }
      this._reconnect();
    }

    _reconnect() {
      const longest = Math.min(MAX_RECONNECT_DELAY, 1000 * 2 ** this._attempts);
      this._attempts += 1;
      clearTimeout(this._reconnectTimer);
      this._reconnectTimer = setTimeout(() => this._socket.connect(), longest * (0.5 + Math.random() / 2));
    }

    _setStatus(status) {
      if (this.status === status) return;
      this.status = status;
      this._emit("status", status);
    }

    /** What is asked for in one go travels in one packet. */
    _schedule() {
      if (this._scheduled) return;
      this._scheduled = true;
      queueMicrotask(() => {
        this._scheduled = false;
        this._flush();
      });
    }

    _flush() {
      if (this._closed || this._busy || !this._socket.connected) return;
      for (const [name, channel] of this._channels) if (channel.idle) this._channels.delete(name);
      const ops = nextOps([...this._channels.values()]);
      if (!ops.length) return;

      this._busy = true;
      const calls = ops.map((op) => op.call);
      for (const op of ops) for (const slot of op.slots) slot.take();
      const [event, payload] = calls.length === 1 ? calls[0] : ["batch", { ops: calls }];
      this._request(event, payload, (answer) => {
        this._busy = false;
        settleOps(ops, answer);
        this._flush();
      });
    }

    _request(event, payload, done) {
      const session = this._session;
      this._socket.timeout(ACK_TIMEOUT).emit(event, payload, (error, answer) => {
        if (session === this._session) done((!error && answer) || {});
      });
    }

    _armBeat() {
      clearTimeout(this._beatTimer);
      this._beatTimer = setTimeout(this._beat, 1000 * this._interval);
    }

    _beat() {
      if (!this._socket.connected) return;
      this._armBeat();
      const elapsed = this._lastBeat === null ? BEAT_PAUSE : Date.now() - this._lastBeat;
      if (elapsed >= 0 && elapsed < BEAT_PAUSE) return;
      this._lastBeat = Date.now();
      this._request("heartbeat", { positions: this._positions() }, (answer) => this._heal(answer));
    }

    _positions() {
      const channels = [...this._channels.values()].filter(({ subscription, fold }) => subscription.on && subscription.settled && fold.synced);
      const start = this._turn < channels.length ? this._turn : 0;
      this._turn = start + MAX_NAMES;
      return Object.fromEntries(channels.slice(start, this._turn).map(({ name, fold }) => [name, positionOf(fold)]));
    }

    _heal({ stale = [], lost = [] }) {
      for (const channel of this._named(stale)) if (channel.subscription.on) channel.refresh.want();
      for (const channel of this._named(lost)) {
        channel.entry.lost();
        channel.notePresent();
      }
      this._schedule();
    }

    _named(names) {
      return names.map((name) => this._channels.get(name)).filter(Boolean);
    }
  }

  /** The next packet's operations. Leaving goes first: it makes room below the limits for entering. */
  function nextOps(channels) {
    const ready = channels.flatMap((channel) => channel.slots).filter((slot) => slot.ready);
    const sociable = ready.filter((slot) => !slot.alone);
    if (!sociable.length) return ready.slice(0, 1).map(opOf);

    const refreshes = sociable.filter((slot) => slot instanceof RefreshSlot);
    const others = sociable.filter((slot) => !(slot instanceof RefreshSlot));
    const ops = [...others.filter((slot) => !slot.on), ...others.filter((slot) => slot.on)].map(opOf);
    return [...ops, ...stateOps(refreshes)].slice(0, MAX_OPS);
  }

  function opOf(slot) {
    return { call: slot.call(), slots: [slot] };
  }

  function stateOps(slots) {
    if (!slots.length) return [];
    const some = slots.slice(0, MAX_NAMES);
    const op = { call: ["state", { channels: some.map((slot) => slot.channel.name) }], slots: some };
    return [op, ...stateOps(slots.slice(MAX_NAMES))];
  }

  function settleOps(ops, answer) {
    if (ops.length === 1) return settleOp(ops[0], answer);
    if (answer.error === "bad_request") return ops.forEach(separate);
    ops.forEach((op, index) => settleOp(op, answer.ok ? (answer.results || [])[index] || {} : answer));
  }

  function settleOp(op, result) {
    if (result.ok) return op.slots.forEach((slot) => slot.accept(result));
    if (op.slots.length > 1) separate(op);
    else if (!isTransient(result)) return op.slots[0].refuse(failure(result.error, result.message));
    else op.slots[0].putBack();
    for (const slot of op.slots) slot.hold(retryDelay(result));
  }

  /** One bad operation spoils its whole packet: each is sent by itself, and the bad one fails alone. */
  function separate(op) {
    for (const slot of op.slots) {
      slot.putBack();
      slot.alone = true;
    }
  }

  // ---- connect -----------------------------------------------------------------------------------------------------------------

  let pageConnection = null;

  /** Without options: the page's one connection, that of the elements too, the first that was made. */
  function connect(options) {
    const open = pageConnection && !pageConnection._closed;
    if (open && !options) return pageConnection;
    const presence = new Presence(settingsWith(options || {}));
    if (!open) pageConnection = presence;
    return presence;
  }

  function settingsWith(options) {
    const settings = { url: null, path: "/socket.io", namespace: "/presence", io: globalThis.io, ...pageSettings() };
    for (const [key, value] of Object.entries(options)) if (value !== undefined) settings[key] = value;
    if (typeof settings.io !== "function") {
      throw new Error("FlaskPresence needs the Socket.IO client: load it before presence.js, or pass {io}");
    }
    return settings;
  }

  function pageSettings() {
    const element = globalThis.document && document.getElementById("flask-presence-settings");
    return element ? JSON.parse(element.textContent) : {};
  }

  globalThis.FlaskPresence = Object.freeze({
    connect,
    fold: Object.freeze({ emptyFold, applyState, applyDiff, usersOf, positionOf, hasGap }),
  });
})();
