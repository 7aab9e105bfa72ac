// The sender and the player of an author of the RFC.
export { WHIPClient } from "whip-whep/whip.js";
export { WHEPClient } from "whip-whep/whep.js";
