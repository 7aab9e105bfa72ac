// A sender and a player as people install them; `esbuild --bundle` makes one module of it that a page can import.
export { WHIPClient } from "@eyevinn/whip-web-client";
export { WebRTCPlayer } from "@eyevinn/webrtc-player";
