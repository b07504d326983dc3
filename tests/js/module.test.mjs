/** The ES module, and that the types name what there is. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import FlaskPresence, * as module from "../../flask_presence/static/presence.mjs";

const types = readFileSync(new URL("../../flask_presence/static/presence.d.ts", import.meta.url), "utf8");

test("the module and the script are one copy", () => {
  const names = Object.keys(module).filter((name) => name !== "default");

  assert.equal(FlaskPresence, globalThis.FlaskPresence);
  assert.deepEqual(names.sort(), Object.keys(FlaskPresence).sort());
  for (const name of names) assert.equal(module[name], FlaskPresence[name]);
});

test("the types name every function of the global and of the fold", () => {
  for (const name of Object.keys(FlaskPresence)) assert.match(types, new RegExp(`(function|const) ${name}\\b`));
  for (const name of Object.keys(FlaskPresence.fold)) assert.match(types, new RegExp(`readonly ${name}: `));
});

test("the types name every public member of a connection and of a channel", () => {
  const socket = { on() {}, off() {}, disconnect() {}, io: { on() {}, off() {} } };
  const presence = FlaskPresence.connect({ io: () => socket });
  const channel = presence.channel("/topic/1");
  presence.close();

  for (const object of [presence, channel]) {
    const members = [...Object.keys(object), ...Object.getOwnPropertyNames(Object.getPrototypeOf(object))];
    const open = members.filter((name) => !name.startsWith("_") && name !== "constructor");
    assert.ok(open.length > 4);
    for (const name of open) assert.match(types, new RegExp(`^    (readonly )?${name}\\b[:(]`, "m"));
  }
});
