/** The part of socket.io-client that presence.js uses. What it sends lies in `sent` until the test acknowledges it. */
import { EventEmitter } from "node:events";

export function socketStub() {
  const socket = Object.assign(new EventEmitter(), { io: new EventEmitter(), connected: false, active: true, sent: [], sendBuffer: [] });
  const go = (connected, ...event) => {
    socket.connected = connected;
    socket.emit(...event);
  };
  return Object.assign(socket, {
    timeout: () => ({ emit: (event, payload, acknowledge) => socket.sent.push({ event, payload, acknowledge }) }),
    off: (...listener) => (listener.length ? socket.removeListener(...listener) : socket.removeAllListeners()),
    connect: () => socket.emit("stub:connect"),
    disconnect: () => go(false, "stub:closed"),
    up: () => go(true, "connect"),
    down: (reason = "transport close") => go(false, "disconnect", reason),
  });
}
