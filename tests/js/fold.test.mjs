/** The fold: the cases that Python reads too, and what only JavaScript does. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import "../../flask_presence/static/presence.js";

const { emptyFold, applyState, applyDiff, usersOf, positionOf, hasGap } = globalThis.FlaskPresence.fold;
const cases = JSON.parse(readFileSync(new URL("../fold.json", import.meta.url), "utf8"));

function step(fold, { state, diff }) {
  return state ? applyState(fold, state) : applyDiff(fold, diff);
}

function seen(fold) {
  return {
    users: usersOf(fold),
    count: fold.count,
    anonymous: fold.anonymous,
    epoch: fold.epoch,
    position: positionOf(fold),
    gap: hasGap(fold),
    needs_state: fold.needsState,
    count_only: fold.countOnly,
  };
}

/** Makes any later write to a fold an error. */
function frozen(fold) {
  const locked = () => assert.fail("a fold was changed in place");
  const entries = Object.assign(new Map(fold.entries), { set: locked, delete: locked, clear: locked });
  for (const range of fold.covered) Object.freeze(range);
  return Object.freeze({ ...fold, entries, covered: Object.freeze(fold.covered), kept: Object.freeze(fold.kept) });
}

for (const { name, steps, expect } of cases) {
  test(`fold: ${name}`, () => {
    const fold = steps.reduce(step, emptyFold());

    assert.deepEqual(seen(fold), expect);
  });

  test(`fold, nothing changed in place: ${name}`, () => {
    const fold = steps.reduce((before, next) => step(frozen(before), next), emptyFold());

    assert.deepEqual(seen(fold), expect);
  });
}

test("diffs converge to the same users in whatever order they arrive", () => {
  const start = { state: { channel: "/a/b", epoch: "e1", revision: 1, count: 1, anonymous: 0, users: [{ id: "a", info: {}, meta: {} }] } };
  const change = (revision, kind, id, count) => ({
    diff: { channel: "/a/b", epoch: "e1", revisions: [[revision, revision]], count, anonymous: 0, [kind]: [{ id, revision, info: {}, meta: { revision } }] },
  });
  const diffs = [change(2, "entered", "b", 2), change(3, "updated", "a", 2), change(4, "left", "b", 1), change(5, "entered", "c", 2), change(6, "entered", "b", 3)];

  for (const order of permutations(diffs)) {
    const fold = [start, ...order].reduce(step, emptyFold());

    assert.deepEqual(usersOf(fold).map(({ id, meta }) => [id, meta.revision]), [["a", 3], ["c", 5], ["b", 6]]);
    assert.deepEqual([fold.count, positionOf(fold), hasGap(fold)], [3, ["e1", 6], false]);
  }
});

test("those who left long ago are forgotten, and late entries of theirs still do not count", () => {
  const stays = { id: "stays", info: {}, meta: {} };
  let fold = applyState(emptyFold(), { channel: "/a/b", epoch: "e1", revision: 0, count: 1, anonymous: 0, users: [stays] });
  const diff = (revision, lists) => ({ channel: "/a/b", epoch: "e1", revisions: [[revision, revision]], count: 1, anonymous: 0, ...lists });
  for (let revision = 1; revision <= 5000; revision += 1) fold = applyDiff(fold, diff(revision, { left: [{ id: `u${revision}`, revision }] }));

  const late = applyDiff(fold, diff(7, { entered: [{ id: "u7", revision: 7, info: {}, meta: {} }] }));

  assert.ok(fold.entries.size <= 1003, `${fold.entries.size} entries`);
  assert.deepEqual(usersOf(late), [stays]);
  assert.deepEqual(positionOf(late), ["e1", 5000]);
});

test("tombstones above a gap outlive the forgetting", () => {
  let fold = applyState(emptyFold(), { channel: "/a/b", epoch: "e1", revision: 0, count: 0, anonymous: 0, users: [] });
  const diff = (revision, lists) => ({ channel: "/a/b", epoch: "e1", revisions: [[revision, revision]], count: 0, anonymous: 0, ...lists });
  for (let revision = 2; revision <= 3000; revision += 1) fold = applyDiff(fold, diff(revision, { left: [{ id: `u${revision}`, revision }] }));

  const late = applyDiff(fold, diff(1, { entered: [{ id: "u3000", revision: 1, info: {}, meta: {} }] }));

  assert.deepEqual(usersOf(late), []);
});

function permutations(items) {
  if (items.length < 2) return [items];
  return items.flatMap((item, index) => permutations([...items.slice(0, index), ...items.slice(index + 1)]).map((rest) => [item, ...rest]));
}
