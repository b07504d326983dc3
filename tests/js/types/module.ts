// An ES module, imported from the URL that the extension serves it at.
import FlaskPresence, { connect, fold, type Channel, type Diff, type State, type User } from "/presence/static/presence.mjs";

export function namesOf(states: State[], diffs: Diff[]): string[] {
  const known = diffs.reduce(fold.applyDiff, states.reduce(fold.applyState, fold.emptyFold()));
  const position: [string | null, number] | null = fold.positionOf(known);
  return fold.usersOf(known).map((user: User) => `${user.id} ${position?.[1]} ${fold.hasGap(known)}`);
}

export const channel: Channel = connect({ auth: (give) => give({ token: "t" }) }).channel("/site/online");
export const same: boolean = FlaskPresence.connect === connect;

// @ts-expect-error: no such export
import { disconnect } from "/presence/static/presence.mjs";
