/**
 * <presence-count> and <presence-users>: who is here, in a page, with no script to write.
 *
 * What the server rendered stays until something differs from it. Each element is one handle of the page's connection;
 * it tells what it hears as bubbling `presence:…` events. A user is shown by the default markup, or by that of a
 * <template> child, whose `data-presence…` attributes say what of the user goes where.
 */
(() => {
  "use strict";
  if (!globalThis.customElements || customElements.get("presence-users")) return; // no browser, or loaded twice
  if (!globalThis.FlaskPresence) throw new Error("elements.js needs presence.js: load it first");

  const { connect } = globalThis.FlaskPresence;
  const EVENTS = ["change", "enter", "leave", "update", "sync", "evicted", "error"];
  const HUES = 8;
  const GATHERING = 1000; // milliseconds: who comes and goes in them is one announcement
  const SILENCE = 5000; // between two announcements
  const FORGETTING = 10000; // whoever reads the page later needs no old news
  const MAX_NAMES = 4; // in a sentence

  // ---- What is shown of a user: markup.py shows the same ------------------------------------------------------------

  const DERIVED = new Map([
    ["id", ({ id }) => id],
    ["name", nameOf],
    ["initials", (user) => initialsOf(nameOf(user))],
    ["hue", ({ id }) => String(hueOf(id))],
    ["avatar", ({ info }) => safeUrl(info.avatar)],
    ["url", ({ info }) => safeUrl(info.url)],
  ]);

  function nameOf({ id, info }) {
    return typeof info.name === "string" && info.name.trim() ? info.name : id;
  }

  function initialsOf(name) {
    const words = name.trim().split(/\s+/).map((word) => [...word][0]);
    return (words.length > 1 ? words[0] + words[words.length - 1] : words[0] || "").toUpperCase();
  }

  function hueOf(id) {
    return new TextEncoder().encode(id).reduce((sum, byte) => sum + byte, 0) % HUES;
  }

  function safeUrl(value) {
    return typeof value === "string" && /^(\/|https?:\/\/)/i.test(value) ? value : null;
  }

  /** As text; `null` where there is nothing to show. */
  function valueOf(user, key) {
    if (DERIVED.has(key)) return DERIVED.get(key)(user);
    const value = key.split(".").reduce(ownValue, user);
    if (value === true || typeof value === "number") return String(value);
    return typeof value === "string" && value ? value : null;
  }

  function ownValue(object, key) {
    if (typeof object !== "object" || object === null || Array.isArray(object)) return null;
    return Object.prototype.hasOwnProperty.call(object, key) ? object[key] : null;
  }

  // ---- The default markup -------------------------------------------------------------------------------------------

  const defaultMarkup = {
    keyOf: ({ id, info }) => JSON.stringify([id, info]),

    create(user) {
      const link = safeUrl(user.info.url);
      const node = elementOf(link ? "a" : "span", "presence-user");
      if (link) node.href = link;
      const name = elementOf("span", "presence-name", nameOf(user));
      name.dir = "auto";
      node.append(avatarNode(user), name);
      return node;
    },

    update(node, user) {
      const fresh = this.create(user);
      if (fresh.localName !== node.localName) return fresh;
      if (fresh.hasAttribute("href")) node.setAttribute("href", fresh.getAttribute("href"));
      node.replaceChildren(...fresh.childNodes);
      return node;
    },
  };

  function avatarNode(user) {
    const source = safeUrl(user.info.avatar);
    if (source) return Object.assign(elementOf("img", "presence-avatar"), { src: source, alt: "" });
    const node = elementOf("span", "presence-avatar", initialsOf(nameOf(user)));
    node.dataset.hue = String(hueOf(user.id));
    node.setAttribute("aria-hidden", "true");
    return node;
  }

  function elementOf(tag, className, text = "") {
    return Object.assign(document.createElement(tag), { className, textContent: text });
  }

  // ---- The app's own markup -----------------------------------------------------------------------------------------

  const PREFIX = "data-presence";
  const KEY = /^(info|meta)(\.[^.\s]+)+$/;
  const PLAIN = /^(alt|title|lang|value|datetime|aria-[a-z]+|data-[a-z0-9-]+)$/;
  const URLS = new Map([["href", "a"], ["src", "img"]]); // elsewhere they could run something

  class OwnMarkup {
    constructor(template) {
      this._root = template.content.firstElementChild;
      if (template.content.childElementCount !== 1) {
        throw new TypeError("the <template> of <presence-users> must hold exactly one element, for one user");
      }
      slotsIn(this._root).forEach(checkSlot);
    }

    keyOf(user) {
      return JSON.stringify(user);
    }

    create(user) {
      return this.update(document.importNode(this._root, true), user);
    }

    update(node, user) {
      for (const { element, part, key } of slotsIn(node)) fillSlot(element, part, valueOf(user, key));
      return node;
    }
  }

  /** `part` is what a slot fills: "" the text, "show" and "hide" whether there is something to see, else an attribute. */
  function slotsIn(root) {
    return [root, ...root.querySelectorAll("*")].flatMap((element) =>
      [...element.attributes]
        .filter(({ name }) => name === PREFIX || name.startsWith(`${PREFIX}-`))
        .map(({ name, value: key }) => ({ element, part: name.slice(PREFIX.length + 1), key })),
    );
  }

  function checkSlot({ element, part, key }) {
    const slot = `<${element.localName} ${PREFIX}${part && `-${part}`}="${key}">`;
    if (!DERIVED.has(key) && !KEY.test(key)) {
      throw new TypeError(`${slot}: no such value; there are ${[...DERIVED.keys()].join(", ")}, info.… and meta.…`);
    }
    if (["", "show", "hide"].includes(part) || PLAIN.test(part)) return;
    if (URLS.get(part) === element.localName) return;
    throw new TypeError(`${slot}: "${part}" cannot be filled here; alt, title, lang, value, datetime, aria-… and data-… can, href of <a> and src of <img>`);
  }

  /** Only what differs is touched: a picture that is set again would load again. */
  function fillSlot(element, part, value) {
    if (part === "") return fillText(element, value || "");
    if (part === "show" || part === "hide") return void (element.hidden = (value === null) === (part === "show"));
    const text = URLS.has(part) ? safeUrl(value) : value;
    if (text === null) element.removeAttribute(part);
    else if (element.getAttribute(part) !== text) element.setAttribute(part, text);
  }

  /** A name may run from right to left; its neighbours shall not be mixed up by it. */
  function fillText(element, text) {
    if (!element.hasAttribute("dir")) element.dir = "auto";
    if (element.textContent !== text) element.textContent = text;
  }

  // ---- Announcements ------------------------------------------------------------------------------------------------

  /** Tells screen readers who came and went, others than oneself, without chattering. */
  class Announcer {
    constructor(element, region) {
      Object.assign(this, { element, region, entered: new Map(), left: new Map() }); // user id -> name
      Object.assign(this, { next: null, forgetting: null, last: -Infinity });
    }

    enter(user) {
      this._note(user, this.entered, this.left);
    }

    leave(user) {
      this._note(user, this.left, this.entered);
    }

    stop() {
      clearTimeout(this.next);
      clearTimeout(this.forgetting);
      this.region.textContent = "";
    }

    /** Who comes back, or goes again, before it was told is no news. */
    _note(user, news, opposite) {
      if (!opposite.delete(user.id)) news.set(user.id, nameOf(user));
      const pause = this.last + SILENCE - performance.now();
      this.next = this.next || setTimeout(() => this._say(), Math.max(GATHERING, pause));
    }

    _say() {
      this.next = null;
      const entered = this._sentence("text-entered", "{names} joined.", this.entered);
      const left = this._sentence("text-left", "{names} left.", this.left);
      const text = [entered, left].filter(Boolean).join(" ");
      if (!text) return;
      this.region.textContent = text;
      this.last = performance.now();
      clearTimeout(this.forgetting);
      this.forgetting = setTimeout(() => (this.region.textContent = ""), FORGETTING);
    }

    _sentence(attribute, text, news) {
      news.delete(connect().userId);
      const names = [...news.values()];
      news.clear();
      return names.length ? textOf(this.element, attribute, text).replace("{names}", () => this._list(names)) : "";
    }

    _list(names) {
      const some = names.length > MAX_NAMES ? names.slice(0, MAX_NAMES - 1) : names;
      const others = names.length - some.length;
      const words = some.map((name) => `\u2068${name}\u2069`); // each in its own direction
      if (others) words.push(textOf(this.element, "text-others", "{count} others").replace("{count}", others));
      return listFormat(this.element).format(words);
    }
  }

  function listFormat(element) {
    const { lang } = element.closest("[lang]") || {};
    try {
      return new Intl.ListFormat(lang || undefined);
    } catch {
      return new Intl.ListFormat(); // a `lang` that is none
    }
  }

  function textOf(element, attribute, text) {
    return element.hasAttribute(attribute) ? element.getAttribute(attribute) : text;
  }

  // ---- The elements -------------------------------------------------------------------------------------------------

  class PresenceElement extends HTMLElement {
    static get observedAttributes() {
      return ["channel", "enter", "max", "announce"];
    }

    connectedCallback() {
      whenPageIsReady(() => {
        if (this._live || !this.isConnected) return;
        this._live = true;
        this._start();
      });
    }

    disconnectedCallback() {
      this._live = false;
      this._stop();
    }

    attributeChangedCallback(attribute, before, after) {
      if (before === after || !this._live) return;
      if (attribute === "max") return this._draw();
      this._stop();
      if (attribute === "channel") this._clear();
      this._start();
    }

    _start() {
      const name = this.getAttribute("channel");
      if (!name) return;
      const initial = this._takeInitial(name);
      const handle = connect().channel(name, { initial });
      this._prepare(handle);
      this._handle = handle;
      if (initial) this._adopt({ users: [], ...initial });
      this._draw();
      this._offs = EVENTS.map((event) => handle.on(event, (value) => this._hear(handle, event, value)));
      handle.subscribe().then(() => this._draw(), ignoreRefusal);
      if (this.hasAttribute("enter")) this._enter(handle);
    }

    _enter(handle) {
      this._entered = true;
      handle.enter().catch((error) => {
        if (handle === this._handle) this._entered = false;
        ignoreRefusal(error);
      });
    }

    _stop() {
      const handle = this._handle;
      if (!handle) return;
      this._handle = null;
      for (const off of this._offs) off();
      handle.unsubscribe().catch(ignoreRefusal);
      if (this._entered) handle.leave().catch(ignoreRefusal);
      this._entered = false;
    }

    _hear(handle, event, value) {
      if (handle !== this._handle) return;
      if (event === "evicted") this._entered = false;
      if (event === "evicted" || (event === "error" && !handle.synced)) this._clear();
      else this._draw();
      const options = { detail: detailOf(handle, event, value), bubbles: true, composed: true };
      this.dispatchEvent(new CustomEvent(`presence:${event}`, options));
    }

    /** Once: what the element shows later, when it is moved or copied, is newer. */
    _takeInitial(name) {
      const state = this.dataset.state ? JSON.parse(this.dataset.state) : null;
      delete this.dataset.state;
      return state && state.channel === name ? state : null;
    }

    _prepare() {}

    /** What the server rendered is what a live element would show. */
    _adopt(state) {
      this._drawn = this._signature(state);
    }

    _clear() {
      this._drawn = null;
      delete this.dataset.count;
      delete this.dataset.anonymous;
      this._empty();
    }

    /** The server's markup stays until something differs from it. */
    _draw() {
      const handle = this._handle;
      if (!handle || !handle.synced) return;
      const signature = this._signature(handle);
      if (signature === this._drawn) return;
      this._drawn = signature;
      this.dataset.count = String(handle.count);
      this.dataset.anonymous = String(handle.anonymous);
      this._render(handle);
    }
  }

  class PresenceCount extends PresenceElement {
    _signature({ count, anonymous }) {
      return `${count} ${anonymous}`;
    }

    _empty() {
      this.textContent = "";
    }

    _render({ count, anonymous }) {
      this.textContent = String(count + anonymous);
    }
  }

  class PresenceUsers extends PresenceElement {
    get _max() {
      const max = parseInt(this.getAttribute("max"), 10);
      return max >= 0 ? max : Infinity;
    }

    _prepare(handle) {
      const template = this._child("template");
      this._markup = template ? new OwnMarkup(template) : defaultMarkup;
      this._faces = this._faces || new Map(); // user id -> {key, node}
      this._announcer = this.hasAttribute("announce") ? new Announcer(this, this._region()) : null;
      this._knows = handle.synced;
    }

    _stop() {
      super._stop();
      if (this._announcer) this._announcer.stop();
    }

    /** Those in the first state that is taken have not just come. */
    _hear(handle, event, user) {
      super._hear(handle, event, user);
      if (handle !== this._handle) return;
      if (event === "sync") this._knows = true;
      if (event === "evicted") this._knows = false;
      if (this._announcer && this._knows && (event === "enter" || event === "leave")) this._announcer[event](user);
    }

    _signature({ users, count, anonymous }) {
      return JSON.stringify([count, anonymous, this._max, users.slice(0, this._max).map((user) => this._markup.keyOf(user))]);
    }

    _adopt(state) {
      const nodes = [...this.children].filter((node) => !node.matches("template, .presence-more, .presence-announcement"));
      const shown = state.users.slice(0, this._max);
      if (nodes.length !== shown.length) return;
      super._adopt(state);
      this._faces = new Map(shown.map((user, index) => [user.id, { key: this._markup.keyOf(user), node: nodes[index] }]));
    }

    _empty() {
      this._faces = new Map();
      this._arrange([]);
    }

    _render({ users, count }) {
      const shown = users.slice(0, this._max);
      this._faces = new Map(shown.map((user) => [user.id, this._face(user)]));
      const nodes = [...this._faces.values()].map(({ node }) => node);
      const more = count - shown.length;
      this._arrange(more > 0 ? [...nodes, this._more(more)] : nodes);
    }

    /** Who stays keeps their node, so that no picture blinks, no animation starts again and no focus is lost. */
    _face(user) {
      const key = this._markup.keyOf(user);
      const known = this._faces.get(user.id);
      if (!known) return { key, node: this._markup.create(user) };
      return known.key === key ? known : { key, node: this._markup.update(known.node, user) };
    }

    _more(count) {
      const node = this._child(".presence-more") || elementOf("span", "presence-more");
      node.textContent = textOf(this, "text-more", "+{count}").replace("{count}", count);
      return node;
    }

    _region() {
      const rendered = this._child(".presence-announcement");
      if (rendered) return rendered;
      const region = elementOf("span", "presence-announcement");
      region.setAttribute("role", "status");
      this.append(region);
      return region;
    }

    _arrange(nodes) {
      replaceChildren(this, [this._child("template"), ...nodes, this._child(".presence-announcement")].filter(Boolean));
    }

    _child(selector) {
      return this.querySelector(`:scope > ${selector}`);
    }
  }

  function detailOf(handle, event, value) {
    const { name: channel, users, count, anonymous, countOnly, present } = handle;
    const detail = { channel, users, count, anonymous, countOnly, present };
    if (event === "evicted") return { ...detail, reason: value.reason };
    if (event === "error") return { ...detail, error: value };
    return value ? { ...detail, user: value } : detail;
  }

  /** Once deferred scripts have run, so that an app that calls `connect` with options of its own comes first. */
  function whenPageIsReady(callback) {
    const once = { once: true };
    if (document.prerendering) return document.addEventListener("prerenderingchange", () => whenPageIsReady(callback), once);
    if (document.readyState === "complete") return callback();
    document.addEventListener("DOMContentLoaded", callback, once);
    window.addEventListener("load", callback, once);
  }

  /** A guest stays a watcher, a channel that may not be viewed shows nothing: both are as they should be. */
  function ignoreRefusal(error) {
    if (!error.code) throw error;
  }

  /** Unlike the DOM's own, it moves no node that need not move. */
  function replaceChildren(parent, nodes) {
    const staying = new Set(nodes);
    for (const node of [...parent.childNodes]) if (!staying.has(node)) node.remove();
    nodes.forEach((node, index) => {
      if (parent.childNodes[index] !== node) parent.insertBefore(node, parent.childNodes[index] || null);
    });
  }

  customElements.define("presence-count", PresenceCount);
  customElements.define("presence-users", PresenceUsers);
})();
