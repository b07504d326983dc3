/** The same as an ES module: it shares the one copy of presence.js with whatever else the page loads. */
import "./presence.js";

const { FlaskPresence } = globalThis;

export default FlaskPresence;
export const { connect, fold } = FlaskPresence;
