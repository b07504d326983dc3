// A classic script: the global. Lines that must not compile are marked as expected errors.
const presence = FlaskPresence.connect();
const overridden: FlaskPresence.Presence = window.FlaskPresence.connect({
  url: null,
  path: "/socket.io",
  namespace: "/presence",
  auth: { token: "t" },
  io: (url: string, options?: { transports?: string[] }) => [url, options],
});

const initial: FlaskPresence.State | null = JSON.parse("null");
const channel = presence.channel("/topic/42", { initial });

async function lifetime(): Promise<void> {
  await channel.subscribe();
  await channel.enter();
  await channel.enter({ typing: true });
  await channel.update({ typing: false });
  await channel.leave();
  await channel.unsubscribe();
}

const off: () => void = channel.on("enter", (user) => console.log(user.id.length, user.info["name"], user.meta));
channel.on("evicted", ({ reason }) => reason === "forbidden");
channel.on("error", (error) => error.code === "login_required" && error.message);
channel.on("change", () => channel.users.map((user) => user.id).concat(String(channel.count + channel.anonymous)));
overridden.on("status", (status) => status === "live");
overridden.on("ping", (data) => data.n);
lifetime().catch((error: FlaskPresence.PresenceError) => error.code);
off();
presence.close();

// @ts-expect-error: no such event
channel.on("join", () => {});
// @ts-expect-error: a change comes with nothing
channel.on("change", (user: FlaskPresence.User) => user.id);
// @ts-expect-error: update needs the meta
channel.update();
// @ts-expect-error: users are read
channel.users.push({ id: "a", info: {}, meta: {} });
// @ts-expect-error: present is read
channel.present = true;
// @ts-expect-error: retried, never rejected with
channel.on("error", (error) => error.code === "unavailable");
// @ts-expect-error: no such option
FlaskPresence.connect({ room: "/topic/42" });
// @ts-expect-error: a state has an epoch
presence.channel("/topic/42", { initial: { channel: "/topic/42", revision: 1, count: 0, anonymous: 0 } });
