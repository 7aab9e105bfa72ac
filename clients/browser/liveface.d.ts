/**
 * Milliseconds to wait before attempt number `attempt` (0 = first retry): doubling, at most 15 s, and never in step
 * with the other pages that lost the same server.
 * @param {number} attempt
 * @param {number} [atLeastMs] what the server asked for in Retry-After
 * @param {number} [chance] a number in 0..1
 */
export function backoff(attempt: number, atLeastMs?: number, chance?: number): number;
/**
 * What is known about a connection, as plain values. `diagnose` reads it; nothing else does.
 * @typedef {Object} Facts
 * @property {State} state
 * @property {boolean} webrtc the browser has RTCPeerConnection
 * @property {boolean} secure the page may ask for a microphone
 * @property {"unknown"|"ok"|"unreachable"|"refused"} server
 * @property {LivefaceError|null} trouble the last failure
 * @property {string} microphone "off" | "asking" | "on" | "muted" or the code of a LivefaceError
 * @property {string} ice RTCIceConnectionState of the last attempt
 * @property {boolean} relayOffered a TURN server is among the ICE servers
 * @property {string} route "" | "host" | "srflx" | "prflx" | "relay" of the chosen pair
 * @property {string} protocol "udp" | "tcp" of the chosen pair
 * @property {boolean} picture frames are arriving
 * @property {boolean} sound the browser lets the sound be heard
 * @property {number} [lossPercent]
 * @property {number} [roundTripMs]
 */
/**
 * The connection doctor: facts in, findings in words out, first cause first. Pure.
 * @param {Facts} facts
 * @returns {Finding[]}
 */
export function diagnose(facts: Facts): Finding[];
/**
 * The browser's own measurements, as numbers a person can use. Missing ones are null.
 * @typedef {Object} Numbers
 * @property {number|null} fps
 * @property {number|null} kbps received, sound and picture
 * @property {number|null} lossPercent of packets received since the last reading
 * @property {number|null} roundTripMs
 * @property {number|null} videoBufferMs mean wait in the video jitter buffer since the last reading
 * @property {number|null} audioBufferMs the same for sound
 * @property {number|null} decodeMs per picture
 * @property {number|null} avOffsetMs positive: sound is early
 * @property {number|null} concealedPercent of the sound since the last reading was invented by the browser
 * @property {number} freezes since the connection began
 * @property {number} frames decoded since the connection began
 * @property {number} width
 * @property {number} height
 * @property {string} codec
 * @property {string} route
 * @property {string} protocol
 * @property {number} bytes received since the connection began
 */
/**
 * Two readings of `getStats` in, numbers out. Pure.
 * @param {Map<string, any>} now @param {Map<string, any>} before
 * @returns {Numbers}
 */
export function digest(now: Map<string, any>, before: Map<string, any>): Numbers;
/**
 * Liveface in a page: speak, and the face speaks. No dependencies, no build step.
 *
 *   import { Liveface } from "./liveface.js";
 *   const face = new Liveface({ server: "https://faces.example", avatar: "demo" });
 *   video.srcObject = face.stream;
 *   await face.connect();
 *   await face.sendMicrophone();
 *
 * One `Liveface` is one conversation. It opens a session over HTTP, one WebRTC connection for sound, picture and
 * events, and opens both again, with back-off, when they are lost. Everything it has to say comes as DOM events:
 * `state`, `finding`, `numbers`, `microphone`, and every event of the server under its own type (`speech.started`,
 * `cleared`, `stats`, `landmarks`, ...), all of these also as `event`.
 */
export const VERSION: "0.1.0";
/** How long each step may take before the connection is given up and tried again, in milliseconds. */
export const PATIENCE: Readonly<{
    request: 10000;
    gather: 400;
    path: 12000;
    silence: 4000;
    flicker: 2500;
    noPath: 5000;
}>;
/**
 * @typedef {"idle"|"asking"|"connecting"|"live"|"waiting"|"failed"|"closed"} State
 * @typedef {{ session_id: string, token?: string, whip_url?: string, whep_url?: string, watch_url?: string, ice_servers?: RTCIceServer[],
 *   expires_at?: number|string, disclosure?: Disclosure }} Ticket what `POST /v1/sessions` answers
 * @typedef {{ ai_generated: boolean, label?: string }} Disclosure
 * @typedef {{ id: string, title?: string, portrait_url?: string, width?: number, height?: number,
 *   lookahead_ms?: number, synthetic?: boolean }} Avatar
 * @typedef {{ id: string, name?: string, engine?: string, language?: string }} Voice
 * @typedef {{ type: string, [field: string]: any }} ServerEvent
 * @typedef {"ok"|"busy"|"warn"|"fail"|"off"} Verdict
 * @typedef {{ name: string, title: string, verdict: Verdict, words: string, advice?: string }} Finding
 */
/** A failure with a code a program can switch on and words a person can read. */
export class LivefaceError extends Error {
    /**
     * @param {string} code
     * @param {string} message
     * @param {{ status?: number, retryAfterMs?: number, permanent?: boolean, cause?: unknown }} [more]
     */
    constructor(code: string, message: string, more?: {
        status?: number;
        retryAfterMs?: number;
        permanent?: boolean;
        cause?: unknown;
    });
    code: string;
    status: number;
    retryAfterMs: number;
    /** True when trying again the same way cannot help. */
    permanent: boolean;
}
/** Loudness of a stream in 0..1 on a scale that looks right to a speaker; `stop()` when done with it. */
export class Loudness {
    /** @param {MediaStream} stream @param {AudioContext} context */
    constructor(stream: MediaStream, context: AudioContext);
    track: MediaStreamTrack;
    source: MediaStreamAudioSourceNode;
    analyser: AnalyserNode;
    samples: Float32Array<ArrayBuffer>;
    read(): number;
    stop(): void;
}
export class Liveface extends EventTarget {
    /**
     * @param {Object} [wishes]
     * @param {string} [wishes.server] where the engine is; default: where this page came from
     * @param {string} [wishes.token] the access key, if the server asks for one
     * @param {string} [wishes.avatar] which presenter; default: the server's first
     * @param {number} [wishes.lookahead] chunks of 40 ms the face may wait to be sure of a sound
     * @param {() => Promise<Ticket>} [wishes.ticket] opens the session instead of this class: your own backend holds the
     *   key, calls `POST /v1/sessions`, and hands the answer to the page
     * @param {string} [wishes.watch] a session id: look on instead of speaking
     * @param {boolean} [wishes.reconnect] default true
     * @param {MediaTrackConstraints} [wishes.microphone] laid over echo cancellation, noise suppression and gain control
     * @param {typeof fetch} [wishes.fetch]
     */
    constructor(wishes?: {
        server?: string | undefined;
        token?: string | undefined;
        avatar?: string | undefined;
        lookahead?: number | undefined;
        ticket?: (() => Promise<Ticket>) | undefined;
        watch?: string | undefined;
        reconnect?: boolean | undefined;
        microphone?: MediaTrackConstraints | undefined;
        fetch?: typeof fetch | undefined;
    });
    server: string;
    token: string;
    avatar: string;
    lookahead: number | undefined;
    watch: string;
    reconnect: boolean;
    constraints: MediaTrackConstraints;
    openTicket: (() => Promise<Ticket>) | undefined;
    fetch: typeof fetch;
    /** The presenter. The same stream for the whole life of this object; its tracks change when it reconnects. */
    stream: MediaStream;
    /** @type {State} */
    state: State;
    /** @type {Ticket|null} */
    session: Ticket | null;
    /** @type {LivefaceError|null} */
    trouble: LivefaceError | null;
    /** @type {Numbers|null} */
    numbers: Numbers | null;
    epoch: number;
    /** @type {MediaStream|null} */
    microphone: MediaStream | null;
    microphoneState: string;
    _listening: boolean;
    _landmarks: boolean;
    _heard: boolean;
    /** @type {Call|null} */
    _call: Call | null;
    _attempt: number;
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    _timer: ReturnType<typeof setTimeout> | undefined;
    /** @type {ReturnType<typeof setInterval>|undefined} */
    _pulse: ReturnType<typeof setInterval> | undefined;
    /** @type {Facts["server"]} */
    _server: Facts["server"];
    _ice: string;
    /** @type {{ resolve: () => void, reject: (error: LivefaceError) => void }[]} */
    _waiting: {
        resolve: () => void;
        reject: (error: LivefaceError) => void;
    }[];
    _leave: () => void | undefined;
    _online: () => false | Promise<void>;
    /** @returns {Promise<Avatar[]>} */
    avatars(): Promise<Avatar[]>;
    /** @returns {Promise<{ voices: Voice[], advice?: string }>} `voices` may be empty; then `advice` says what to install */
    voices(): Promise<{
        voices: Voice[];
        advice?: string;
    }>;
    /** @returns {Promise<{ name: string, version: string, backend?: string, model?: string, probe?: boolean }>} */
    version(): Promise<{
        name: string;
        version: string;
        backend?: string;
        model?: string;
        probe?: boolean;
    }>;
    /**
     * Opens the session and the connection. Resolves when the picture arrives; rejects only when trying again cannot
     * help (or `reconnect` is false). Until then `state` says "waiting" with `retryInMs`.
     */
    connect(): Promise<any>;
    /**
     * Sends a microphone (or any sound stream); null stops it and gives the device back. May come before or after
     * `connect`, and again to change the device.
     * @param {MediaStream | string | null} [source] a stream, a device id, or nothing for the default microphone
     * @returns {Promise<MediaStream|null>}
     */
    sendMicrophone(source?: MediaStream | string | null): Promise<MediaStream | null>;
    set listening(open: boolean);
    /** Whether the microphone is heard. False sends silence: the device stays open, so talking starts at once. */
    get listening(): boolean;
    /**
     * Lets the face speak an audio file. Any format the server's decoder opens.
     * @param {Blob} file
     */
    sendFile(file: Blob): Promise<any>;
    /** @param {string} text @param {string} [voice] an id from `voices()` @returns {Promise<{ segment_id: string }>} */
    say(text: string, voice?: string): Promise<{
        segment_id: string;
    }>;
    /** Stops the face now. Over the data channel when there is one: it is the faster road. */
    interrupt(): Promise<void>;
    /** Asks for `landmarks` events (or no longer), to draw over the picture. @param {boolean} wanted */
    landmarks(wanted: boolean): void;
    /** Sends one JSON event on the data channel. @param {ServerEvent} event @returns {boolean} false: the channel is not open */
    send(event: ServerEvent): boolean;
    /** Gives the seat back and asks for a new one: after `avatar` was changed, or when a person is tired of waiting. */
    redial(): void;
    /** The peer connection's own report; null when there is none. @returns {Promise<RTCStatsReport|null>} */
    stats(): Promise<RTCStatsReport | null>;
    /** Tell this object whether the page can be heard: it knows the video element, the doctor does not. @param {boolean} yes */
    heard(yes: boolean): void;
    /** Ends the conversation, frees the seat, gives the microphone back. The object can connect again. */
    close(): Promise<void>;
    /** The doctor's facts, now. @returns {Facts} */
    facts(): Facts;
    /** @param {string} verb */
    _path(verb: string): string;
    /** @param {string} url */
    _absolute(url: string): string;
    /**
     * @param {string} method @param {string} url @param {BodyInit} [body] @param {string} [type] @param {string} [token]
     * @returns {Promise<Response>}
     */
    _request(method: string, url: string, body?: BodyInit, type?: string, token?: string): Promise<Response>;
    /** @param {string} method @param {string} url @param {BodyInit} [body] @param {string} [type] @returns {Promise<any>} */
    _json(method: string, url: string, body?: BodyInit, type?: string): Promise<any>;
    /** @param {string} type @param {any} detail */
    _emit(type: string, detail: any): void;
    /** @param {State} state @param {{ retryInMs?: number }} [more] */
    _is(state: State, more?: {
        retryInMs?: number;
    }): void;
    _findings(): void;
    /** @param {LivefaceError|null} error */
    _settle(error: LivefaceError | null): void;
    /** @param {MediaStream|null} stream @param {string} state */
    _setMicrophone(stream: MediaStream | null, state: string): void;
    /** @param {string} state */
    _microphoneIs(state: string): void;
    _drop(): void;
    _dial(): Promise<void>;
    _dialled: symbol | undefined;
    /** @returns {Promise<Ticket>} */
    _ticket(): Promise<Ticket>;
    /** @param {Call} call */
    _offer(call: Call): Promise<void>;
    /** @param {Call} call */
    _noPath(call: Call): LivefaceError;
    /** The first packets of the picture are here. @param {Call} call */
    _flowing(call: Call): void;
    /** @param {Call} call */
    _measure(call: Call): Promise<void>;
    /** @param {string} text */
    _event(text: string): void;
    /** @param {LivefaceError} error */
    _lost(error: LivefaceError): void;
}
/**
 * What is known about a connection, as plain values. `diagnose` reads it; nothing else does.
 */
export type Facts = {
    state: State;
    /**
     * the browser has RTCPeerConnection
     */
    webrtc: boolean;
    /**
     * the page may ask for a microphone
     */
    secure: boolean;
    server: "unknown" | "ok" | "unreachable" | "refused";
    /**
     * the last failure
     */
    trouble: LivefaceError | null;
    /**
     * "off" | "asking" | "on" | "muted" or the code of a LivefaceError
     */
    microphone: string;
    /**
     * RTCIceConnectionState of the last attempt
     */
    ice: string;
    /**
     * a TURN server is among the ICE servers
     */
    relayOffered: boolean;
    /**
     * "" | "host" | "srflx" | "prflx" | "relay" of the chosen pair
     */
    route: string;
    /**
     * "udp" | "tcp" of the chosen pair
     */
    protocol: string;
    /**
     * frames are arriving
     */
    picture: boolean;
    /**
     * the browser lets the sound be heard
     */
    sound: boolean;
    lossPercent?: number | undefined;
    roundTripMs?: number | undefined;
};
/**
 * The browser's own measurements, as numbers a person can use. Missing ones are null.
 */
export type Numbers = {
    fps: number | null;
    /**
     * received, sound and picture
     */
    kbps: number | null;
    /**
     * of packets received since the last reading
     */
    lossPercent: number | null;
    roundTripMs: number | null;
    /**
     * mean wait in the video jitter buffer since the last reading
     */
    videoBufferMs: number | null;
    /**
     * the same for sound
     */
    audioBufferMs: number | null;
    /**
     * per picture
     */
    decodeMs: number | null;
    /**
     * positive: sound is early
     */
    avOffsetMs: number | null;
    /**
     * of the sound since the last reading was invented by the browser
     */
    concealedPercent: number | null;
    /**
     * since the connection began
     */
    freezes: number;
    /**
     * decoded since the connection began
     */
    frames: number;
    width: number;
    height: number;
    codec: string;
    route: string;
    protocol: string;
    /**
     * received since the connection began
     */
    bytes: number;
};
export type State = "idle" | "asking" | "connecting" | "live" | "waiting" | "failed" | "closed";
/**
 * what `POST /v1/sessions` answers
 */
export type Ticket = {
    session_id: string;
    token?: string;
    whip_url?: string;
    whep_url?: string;
    watch_url?: string;
    ice_servers?: RTCIceServer[];
    expires_at?: number | string;
    disclosure?: Disclosure;
};
export type Disclosure = {
    ai_generated: boolean;
    label?: string;
};
export type Avatar = {
    id: string;
    title?: string;
    portrait_url?: string;
    width?: number;
    height?: number;
    lookahead_ms?: number;
    synthetic?: boolean;
};
export type Voice = {
    id: string;
    name?: string;
    engine?: string;
    language?: string;
};
export type ServerEvent = {
    type: string;
    [field: string]: any;
};
export type Verdict = "ok" | "busy" | "warn" | "fail" | "off";
export type Finding = {
    name: string;
    title: string;
    verdict: Verdict;
    words: string;
    advice?: string;
};
/** One attempt: one ticket, one peer connection. A lost call is thrown away, never mended. */
declare class Call {
    /** @param {Ticket} ticket @param {boolean} viewer */
    constructor(ticket: Ticket, viewer: boolean);
    ticket: Ticket;
    viewer: boolean;
    over: boolean;
    /** @type {string} */
    location: string;
    born: number;
    pc: RTCPeerConnection;
    /** @type {RTCDataChannel|null} */
    channel: RTCDataChannel | null;
    /** @type {RTCRtpTransceiver|null} */
    voice: RTCRtpTransceiver | null;
    /** @type {Map<string, any>} */
    before: Map<string, any>;
    /** The browser's clock when bytes last grew. */
    fed: number;
    bytes: number;
    /** Closes, and tells the server, so that the seat is free at once. @param {string} server */
    end(server: string): void;
}
export {};
