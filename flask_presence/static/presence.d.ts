/**
 * Types of presence.js (the global `FlaskPresence`), of presence.mjs (the same as an ES module, from whatever URL) and of
 * the elements in elements.js. Reference this file, or list it under `files` in tsconfig.json.
 *
 * `Info` is what the app's `user_info` says of a user, `Meta` what its pages give to `enter` and `update`.
 */
declare namespace FlaskPresence {
  type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
  type JsonObject = { [key: string]: Json };

  /** `null` for the epoch of a channel that nobody ever entered. */
  type Position = [epoch: string | null, revision: number];

  interface User<Info extends object = JsonObject, Meta extends object = JsonObject> {
    readonly id: string;
    /** What the app's `user_info` says; the elements use `name`, `avatar` and `url`. */
    readonly info: Readonly<Info>;
    /** Empty where the user's clients gave none. */
    readonly meta: Readonly<Partial<Meta>>;
  }

  /** A snapshot of a channel, as the server sends it. */
  interface State<Info extends object = JsonObject, Meta extends object = JsonObject> {
    channel: string;
    epoch: string | null;
    revision: number;
    count: number;
    anonymous: number;
    /** In the order of entering; absent in a count-only channel. */
    users?: User<Info, Meta>[];
    count_only?: true;
  }

  /** What changed in a channel, as the server sends it. */
  interface Diff<Info extends object = JsonObject, Meta extends object = JsonObject> {
    channel: string;
    epoch: string;
    /** Inclusive ranges. */
    revisions: [from: number, to: number][];
    count: number;
    anonymous: number;
    entered?: (User<Info, Meta> & { revision: number })[];
    updated?: (User<Info, Meta> & { revision: number })[];
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

  interface ChannelEvents<Info extends object = JsonObject, Meta extends object = JsonObject> {
    /** After anything changed: users, counts, `countOnly` or `present`. */
    change: () => void;
    /** Found by comparing before and after, so a first state tells of everybody in it, unless there was an initial one. */
    enter: (user: User<Info, Meta>) => void;
    leave: (user: User<Info, Meta>) => void;
    update: (user: User<Info, Meta>) => void;
    /** A state was taken from the server. */
    sync: () => void;
    evicted: (eviction: Evicted) => void;
    /** Something asked for was refused for good, now or after a reconnect, and is not asked for any more. */
    error: (error: PresenceError) => void;
  }

  /** Without a `Meta` of its own, a channel takes any object. */
  type Given<Meta extends object> = JsonObject extends Meta ? object : Meta;

  /**
   * A handle on a channel. Handles of one channel share what is known; it is left, or unsubscribed, with the last of them.
   *
   * A promise resolves once the server has confirmed what was asked for, or what was asked for since in its place;
   * offline, it waits.
   */
  interface Channel<Info extends object = JsonObject, Meta extends object = JsonObject> {
    readonly name: string;
    /** In the order of entering; live while subscribed, empty in a count-only channel. */
    readonly users: readonly User<Info, Meta>[];
    /** Users; anonymous clients are not among them. */
    readonly count: number;
    readonly anonymous: number;
    readonly countOnly: boolean;
    /** Whether this client is in, as far as the server has confirmed on this connection. */
    readonly present: boolean;
    /** Whether a state is known, from the server or as the initial one: until then, `users` and `count` say nothing. */
    readonly synced: boolean;

    subscribe(): Promise<void>;
    unsubscribe(): Promise<void>;
    /** Without `meta`, what was given before stays. */
    enter(meta?: Given<Meta>): Promise<void>;
    /** Replaces the meta; only after `enter`. */
    update(meta: Given<Meta>): Promise<void>;
    leave(): Promise<void>;

    /** Returns a function that takes the callback off again. */
    on<Event extends keyof ChannelEvents>(event: Event, callback: ChannelEvents<Info, Meta>[Event]): () => void;
  }

  /** The first attempt under way; connected; or not connected (it tries again by itself, unless closed). */
  type Status = "connecting" | "live" | "offline";

  interface Presence<Info extends object = JsonObject, Meta extends object = JsonObject> {
    readonly status: Status;
    /** This client's id, from the server's `hello`. */
    readonly clientId: string | null;
    /** `null` for an anonymous client. */
    readonly userId: string | null;

    /**
     * `initial`: a state that came with the page; `null` is as good as none. Where what is given in this channel differs
     * from the rest, say so: `channel<Person, Typing>(name)`.
     */
    channel<ItsInfo extends object = Info, ItsMeta extends object = Meta>(
      name: string,
      options?: { initial?: State<ItsInfo, ItsMeta> | null },
    ): Channel<ItsInfo, ItsMeta>;
    on(event: "status", callback: (status: Status) => void): () => void;
    /** An event that the app's server sends with `channel.emit`. */
    on<Data = any>(event: string, callback: (data: Data) => void): () => void;
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
  function connect<Info extends object = JsonObject, Meta extends object = JsonObject>(options?: Options): Presence<Info, Meta>;

  /** What each `presence:…` event of an element carries. */
  interface Detail<Info extends object = JsonObject, Meta extends object = JsonObject> {
    /** The channel's name. */
    readonly channel: string;
    readonly users: readonly User<Info, Meta>[];
    readonly count: number;
    readonly anonymous: number;
    readonly countOnly: boolean;
    readonly present: boolean;
  }

  /** `presence:enter`, `presence:leave` and `presence:update`. */
  interface UserDetail<Info extends object = JsonObject, Meta extends object = JsonObject> extends Detail<Info, Meta> {
    readonly user: User<Info, Meta>;
  }

  /** The elements' events, which bubble, out of shadow roots too; what they tell is in the page by then. */
  interface ElementEvents<Info extends object = JsonObject, Meta extends object = JsonObject> {
    "presence:change": CustomEvent<Detail<Info, Meta>>;
    "presence:enter": CustomEvent<UserDetail<Info, Meta>>;
    "presence:leave": CustomEvent<UserDetail<Info, Meta>>;
    "presence:update": CustomEvent<UserDetail<Info, Meta>>;
    "presence:sync": CustomEvent<Detail<Info, Meta>>;
    "presence:evicted": CustomEvent<Detail<Info, Meta> & Pick<Evicted, "reason">>;
    "presence:error": CustomEvent<Detail<Info, Meta> & { readonly error: PresenceError }>;
  }

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

interface GlobalEventHandlersEventMap extends FlaskPresence.ElementEvents {}

interface HTMLElementTagNameMap {
  "presence-count": HTMLElement;
  "presence-users": HTMLElement;
}

declare module "*/presence.mjs" {
  export default FlaskPresence;
  export import connect = FlaskPresence.connect;
  export import fold = FlaskPresence.fold;
  export import Channel = FlaskPresence.Channel;
  export import ChannelEvents = FlaskPresence.ChannelEvents;
  export import Detail = FlaskPresence.Detail;
  export import Diff = FlaskPresence.Diff;
  export import ElementEvents = FlaskPresence.ElementEvents;
  export import ErrorCode = FlaskPresence.ErrorCode;
  export import Evicted = FlaskPresence.Evicted;
  export import Fold = FlaskPresence.Fold;
  export import Json = FlaskPresence.Json;
  export import JsonObject = FlaskPresence.JsonObject;
  export import Options = FlaskPresence.Options;
  export import Position = FlaskPresence.Position;
  export import Presence = FlaskPresence.Presence;
  export import PresenceError = FlaskPresence.PresenceError;
  export import State = FlaskPresence.State;
  export import Status = FlaskPresence.Status;
  export import User = FlaskPresence.User;
  export import UserDetail = FlaskPresence.UserDetail;
}
