/**
 * Types of presence.js (the global `FlaskPresence`) and of presence.mjs (the same as an ES module, from whatever URL).
 * Reference this file, or list it under `files` in tsconfig.json.
 */
declare namespace FlaskPresence {
  type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
  type JsonObject = { [key: string]: Json };

  /** `null` for the epoch of a channel that nobody ever entered. */
  type Position = [epoch: string | null, revision: number];

  interface User {
    readonly id: string;
    /** What the app's `user_info` says; the elements use `name`, `avatar` and `url`. */
    readonly info: Readonly<JsonObject>;
    readonly meta: Readonly<JsonObject>;
  }

  /** A snapshot of a channel, as the server sends it. */
  interface State {
    channel: string;
    epoch: string | null;
    revision: number;
    count: number;
    anonymous: number;
    /** In the order of entering; absent in a count-only channel. */
    users?: User[];
    count_only?: true;
  }

  /** What changed in a channel, as the server sends it. */
  interface Diff {
    channel: string;
    epoch: string;
    /** Inclusive ranges. */
    revisions: [from: number, to: number][];
    count: number;
    anonymous: number;
    entered?: (User & { revision: number })[];
    updated?: (User & { revision: number })[];
    left?: { id: string; revision: number }[];
  }

  type ErrorCode =
    | "bad_request"
    | "not_found"
    | "login_required"
    | "channel_full"
    | "too_many_channels"
    | "not_present"
    /** The server took this client out while it asked. */
    | "evicted"
    /** The connection was closed with `close()`. */
    | "closed";

  /** What promises reject with. `unavailable` and `rate_limited` are not among the codes: those are tried again. */
  interface PresenceError extends Error {
    readonly name: "PresenceError";
    readonly code: ErrorCode;
  }

  interface Evicted {
    channel: string;
    reason: "evicted" | "forbidden" | "cleared";
  }

  interface ChannelEvents {
    /** After anything changed: users, counts, `countOnly` or `present`. */
    change: () => void;
    /** Found by comparing before and after, so a first state tells of everybody in it, unless there was an initial one. */
    enter: (user: User) => void;
    leave: (user: User) => void;
    update: (user: User) => void;
    /** A state was taken from the server. */
    sync: () => void;
    evicted: (eviction: Evicted) => void;
    /** Something asked for was refused for good, now or after a reconnect, and is not asked for any more. */
    error: (error: PresenceError) => void;
  }

  /**
   * A handle on a channel. Handles of one channel share what is known; it is left, or unsubscribed, with the last of them.
   *
   * A promise resolves once the server has confirmed what was asked for, or what was asked for since in its place;
   * offline, it waits.
   */
  interface Channel {
    readonly name: string;
    /** In the order of entering; live while subscribed, empty in a count-only channel. */
    readonly users: readonly User[];
    /** Users; anonymous clients are not among them. */
    readonly count: number;
    readonly anonymous: number;
    readonly countOnly: boolean;
    /** Whether this client is in, as far as the server has confirmed on this connection. */
    readonly present: boolean;

    subscribe(): Promise<void>;
    unsubscribe(): Promise<void>;
    /** Without `meta`, what was given before stays. */
    enter(meta?: object): Promise<void>;
    /** Replaces the meta; only after `enter`. */
    update(meta: object): Promise<void>;
    leave(): Promise<void>;

    /** Returns a function that takes the callback off again. */
    on<Event extends keyof ChannelEvents>(event: Event, callback: ChannelEvents[Event]): () => void;
  }

  /** The first attempt under way; connected; or not connected (it tries again by itself, unless closed). */
  type Status = "connecting" | "live" | "offline";

  interface Presence {
    readonly status: Status;
    /** This client's id, from the server's `hello`. */
    readonly clientId: string | null;
    /** `null` for an anonymous client. */
    readonly userId: string | null;

    /** `initial`: a state that came with the page; `null` is as good as none. */
    channel(name: string, options?: { initial?: State | null }): Channel;
    on(event: "status", callback: (status: Status) => void): () => void;
    /** An event that the app's server sends with `channel.emit`. */
    on(event: string, callback: (data: any) => void): () => void;
    /** Leaves everything at once, for good. */
    close(): void;
  }

  /** Where not given: what the `presence_client` macro says, then the defaults. */
  interface Options {
    /** The server's origin; `null`: the page's. */
    url?: string | null;
    /** Socket.IO's path, by default `/socket.io`. */
    path?: string;
    /** By default `/presence`. */
    namespace?: string;
    /** What the server's `user_loader` gets; a function is called for each connection. */
    auth?: { [key: string]: unknown } | ((give: (auth: object) => void) => void);
    /** The Socket.IO client, by default the global `io`; wrap it to set further options of its own. */
    io?: (url: string, options: any) => unknown;
  }

  /**
   * Without options: the page's one connection, which the elements use too. That is the first one made on the page, so
   * an app with options of its own calls this in a deferred script or a module, before the elements start.
   * With options: a new connection.
   */
  function connect(options?: Options): Presence;

  /** What is known of a channel; opaque but for these. */
  interface Fold {
    readonly synced: boolean;
    readonly epoch: string | null;
    readonly count: number;
    readonly anonymous: number;
    readonly countOnly: boolean;
    /** A diff of another epoch came: ask for a state. */
    readonly needsState: boolean;
  }

  /** The pure functions underneath. */
  const fold: {
    readonly emptyFold: () => Fold;
    readonly applyState: (fold: Fold, state: State) => Fold;
    readonly applyDiff: (fold: Fold, diff: Diff) => Fold;
    readonly usersOf: (fold: Fold) => User[];
    /** `null` before the first state. */
    readonly positionOf: (fold: Fold) => Position | null;
    readonly hasGap: (fold: Fold) => boolean;
  };
}

interface Window {
  FlaskPresence: typeof FlaskPresence;
}

declare module "*/presence.mjs" {
  export default FlaskPresence;
  export import connect = FlaskPresence.connect;
  export import fold = FlaskPresence.fold;
  export import Channel = FlaskPresence.Channel;
  export import Diff = FlaskPresence.Diff;
  export import ErrorCode = FlaskPresence.ErrorCode;
  export import Evicted = FlaskPresence.Evicted;
  export import Fold = FlaskPresence.Fold;
  export import Options = FlaskPresence.Options;
  export import Position = FlaskPresence.Position;
  export import Presence = FlaskPresence.Presence;
  export import PresenceError = FlaskPresence.PresenceError;
  export import State = FlaskPresence.State;
  export import Status = FlaskPresence.Status;
  export import User = FlaskPresence.User;
}
