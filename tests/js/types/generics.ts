// What an app's users and metas look like, said once. Lines that must not compile are marked as expected errors.
import { connect, type Channel, type ElementEvents, type State, type User } from "../../../flask_presence/static/presence.mjs";

interface Person {
  name: string;
  avatar?: string;
}

interface Typing {
  typing: boolean;
}

const presence = connect<Person, Typing>();
const channel: Channel<Person, Typing> = presence.channel("/topic/42");
const typing: Typing = { typing: true };

export async function reply(): Promise<void> {
  await channel.enter();
  await channel.enter(typing);
  await channel.update({ typing: false });
}

export function namesOf(users: readonly User<Person, Typing>[]): string[] {
  return users.filter((user) => user.meta.typing).map((user) => user.info.name);
}

export const names: string[] = namesOf(channel.users);
channel.on("enter", (user) => user.info.name.length);
export const state: State<Person, Typing> = { channel: "/topic/42", epoch: null, revision: 0, count: 0, anonymous: 0, users: [] };
presence.channel("/topic/42", { initial: state });

// A channel whose metas are others than the rest's.
interface Cursor {
  x: number;
  y: number;
}
const board = presence.channel<Person, Cursor>("/board/1");
export const place: Promise<void> = board.update({ x: 1, y: 2 });
export const row: (number | undefined)[] = board.users.map((user) => user.meta.y);

// Without types of its own, an app gives what it likes, and reads JSON.
const loose = connect().channel("/site/online");
export const given: Promise<void> = loose.enter(typing);
export const mood = loose.users.map((user) => user.meta["mood"] === "glad" && user.info["name"]);

// An event of the app's own.
presence.on<{ n: number }>("ping", ({ n }) => n.toFixed());

// Events of the elements, wherever they are listened to.
document.body.addEventListener("presence:enter", (event) => event.detail.user.id + event.detail.count);
document.addEventListener("presence:evicted", ({ detail }) => detail.reason === "forbidden");
window.addEventListener("presence:error", ({ detail }) => detail.error.code === "login_required");
document.querySelector("presence-users")?.addEventListener("presence:change", ({ detail }) => detail.users.length);
export const onEnter = ({ detail }: ElementEvents<Person, Typing>["presence:enter"]): string => detail.user.info.name;

// @ts-expect-error: no such meta
channel.enter({ tpying: true });
// @ts-expect-error: whole, not in part
board.update({ x: 1 });
// @ts-expect-error: another meta than this channel's
board.enter(typing);
// @ts-expect-error: no such info
channel.users.map((user) => user.info.nmae);
// @ts-expect-error: there may be no meta
export const always: boolean[] = channel.users.map((user) => user.meta.typing);
// @ts-expect-error: an info is read
channel.on("enter", (user) => (user.info.name = "other"));
// @ts-expect-error: a meta is an object
connect<Person, string>();
// @ts-expect-error: JSON is not just any text
export const text: string[] = loose.users.map((user) => user.info["name"]);
// @ts-expect-error: the state of other users
presence.channel<Person, Typing>("/topic/42", { initial: { ...state, users: [{ id: "a", info: { nom: "A" }, meta: {} }] } });
// @ts-expect-error: a change is about nobody
document.body.addEventListener("presence:change", ({ detail }) => detail.user);
// @ts-expect-error: a count is text, not a number
document.querySelector("presence-count")?.dataset.count?.toFixed();
