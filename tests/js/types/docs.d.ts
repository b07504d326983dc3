// What JavaScript in the documentation takes for granted.
declare const presence: FlaskPresence.Presence;
declare const channel: FlaskPresence.Channel;
declare const state: FlaskPresence.State;
declare const diff: FlaskPresence.Diff;
declare function draw(users: readonly FlaskPresence.User[], count: number): void;
declare function show(text: string): void;
