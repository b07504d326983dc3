/** Timers and a clock that only move when told to; those of node:test differ from one Node to the next. */
import { mock } from "node:test";

let now = 0;
let timers = new Map();

export function stopTime() {
  now = 0;
  timers = new Map();
  let last = 0;
  mock.method(Date, "now", () => now);
  mock.method(globalThis, "clearTimeout", (id) => timers.delete(id));
  mock.method(globalThis, "setTimeout", (callback, delay = 0) => {
    last += 1;
    timers.set(last, { at: now + Math.max(1, delay), callback });
    return last;
  });
}

export function tick(milliseconds) {
  const until = now + milliseconds;
  for (;;) {
    const due = [...timers].filter(([, { at }]) => at <= until).sort((a, b) => a[1].at - b[1].at || a[0] - b[0]);
    if (!due.length) break;
    const [id, { at, callback }] = due[0];
    timers.delete(id);
    now = at;
    callback();
  }
  now = until;
}
