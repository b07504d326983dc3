/** The same as an ES module, elements included: it shares the one copy of both with whatever else the page loads. */
import "./presence.js";
import "./elements.js";

const { FlaskPresence } = globalThis;

export default FlaskPresence;
export const { connect, fold } = FlaskPresence;
