/**
 * A middleware function that tracks HTTP requests, for Express and for servers of `node:http`.
 *
 * This is the first step of the flow *proxy → tracker → component → transaction → database*. The function identifies
 * the sender of a request, and tracks the request when its response ends.
 */

import type { IncomingMessage, ServerResponse } from "node:http";

import { BoundaryUsageError, messageOf } from "./errors.ts";
import { checkOnError, report, warn } from "./options.ts";
import type { Tracker } from "./tracker.ts";

/** Where an id of a request comes from: the name of a header, or a function. `undefined` means no identity. */
export type IdSource<Request extends IncomingMessage> = string | ((request: Request) => string | undefined);

/** How a response becomes a denial: by its status, or by a function. */
export type DeniedBy<Request extends IncomingMessage, Response extends ServerResponse> =
  | readonly number[]
  | ((request: Request, response: Response) => boolean);

/** The options of the middleware. */
export interface MiddlewareOptions<
  Request extends IncomingMessage = IncomingMessage,
  Response extends ServerResponse = ServerResponse,
> {
  /** The workspace of a request. Default: the header `x-workspace`. */
  workspace?: IdSource<Request>;
  /** The owner of the workspace. Default: the header `x-owner`. */
  owner?: IdSource<Request>;
  /** The responses that are denials. Default: the statuses 403 and 407. */
  denied?: DeniedBy<Request, Response>;
  /** Called with the 1st, 2nd, 4th, 8th … failure of each kind. Default: `process.emitWarning`. */
  onError?: (error: BoundaryUsageError) => void;
}

/** The request counts of a middleware function. */
export interface TrafficCounts {
  /** Allowed requests that the tracker accepted. */
  allowed: number;
  /** Denied requests that the tracker accepted. */
  denied: number;
  /** Requests without a valid identity. They passed untracked. */
  unidentified: number;
  /** Requests that passed untracked after a failure. They are in no summary, so this should stay 0. */
  refused: number;
}

/** The decision about a request. */
export type Decision = "allowed" | "denied";

/** The middleware function. */
export interface Middleware<
  Request extends IncomingMessage = IncomingMessage,
  Response extends ServerResponse = ServerResponse,
> {
  /** Tracks a request when its response ends, and calls `next` immediately. */
  (request: Request, response: Response, next?: () => void): void;
  /** Tracks a request without a response, such as `CONNECT` or an upgrade. */
  record(request: Request, decision: Decision): void;
  /** Returns the counts so far. */
  counts(): TrafficCounts;
}

/**
 * Creates a middleware function for a tracker.
 *
 * The function never throws, never waits, and changes neither request nor response. The caller remains responsible for
 * the tracker's shutdown.
 */
export function middleware<
  Request extends IncomingMessage = IncomingMessage,
  Response extends ServerResponse = ServerResponse,
>(tracker: Tracker, options: MiddlewareOptions<Request, Response> = {}): Middleware<Request, Response> {
  const recorder = new Recorder<Request, Response>(tracker, options);
  const handle = (request: Request, response: Response, next?: () => void) => {
    recorder.handle(request, response);
    next?.();
  };
  return Object.assign(handle, {
    record: (request: Request, decision: Decision) => recorder.record(request, decision),
    counts: () => ({ ...recorder.counts }),
  });
}

/** The workspace and the owner of a request, as the proxy gives them. The tracker validates them. */
type Identity = readonly [workspace: string, owner: string];

/** Identifies requests, decides about them, and counts them. */
class Recorder<Request extends IncomingMessage, Response extends ServerResponse> {
  readonly counts: TrafficCounts = { allowed: 0, denied: 0, unidentified: 0, refused: 0 };
  readonly #tracker: Tracker;
  readonly #workspace: (request: Request) => string;
  readonly #owner: (request: Request) => string;
  readonly #isDenied: (request: Request, response: Response) => boolean;
  readonly #onError: (error: BoundaryUsageError) => void;

  constructor(tracker: Tracker, options: MiddlewareOptions<Request, Response>) {
    const { workspace = "x-workspace", owner = "x-owner", denied = [403, 407], onError = warn } = options;
    checkOnError(onError);
    this.#tracker = tracker;
    this.#workspace = readerOf("workspace", workspace);
    this.#owner = readerOf("owner", owner);
    this.#isDenied = denialOf(denied);
    this.#onError = onError;
  }

  handle(request: Request, response: Response): void {
    // A proxy may remove the headers before the response ends.
    const identity = this.#identify(request);
    if (identity === undefined) {
      return;
    }
    const end = () => this.#track(identity, () => (this.#isDenied(request, response) ? "denied" : "allowed"));
    if (response.closed) {
      // The client has disconnected while an earlier middleware function was waiting.
      end();
    } else {
      // Node.js emits it once for each response, also if the client disconnects.
      response.once("close", end);
    }
  }

  record(request: Request, decision: Decision): void {
    const identity = this.#identify(request);
    if (identity !== undefined) {
      this.#track(identity, () => decision);
    }
  }

  #identify(request: Request): Identity | undefined {
    try {
      return [this.#workspace(request), this.#owner(request)];
    } catch (error) {
      this.#fail("unidentified", error);
      return undefined;
    }
  }

  #track([workspace, owner]: Identity, decide: () => Decision): void {
    try {
      const isDenied = decide() === "denied";
      this.#tracker.track(workspace, owner, isDenied ? 0 : 1, isDenied ? 1 : 0);
      this.counts[isDenied ? "denied" : "allowed"] += 1;
    } catch (error) {
      const isInvalid = error instanceof BoundaryUsageError && error.kind === "configuration";
      this.#fail(isInvalid ? "unidentified" : "refused", error);
    }
  }

  /** Counts a request that is not tracked. Many of them cause few reports. */
  #fail(count: "unidentified" | "refused", error: unknown): void {
    const total = (this.counts[count] += 1);
    if (Number.isInteger(Math.log2(total))) {
      const what = count === "unidentified" ? "without a valid identity" : "after a failure";
      const message = `untracked requests ${what} so far: ${total}; the last one: ${messageOf(error)}`;
      const kind = error instanceof BoundaryUsageError ? error.kind : "configuration";
      report(this.#onError, new BoundaryUsageError(kind, message, { cause: error }));
    }
  }
}

/** Returns a function that reads an id from a request, and throws if the request has none. */
function readerOf<Request extends IncomingMessage>(
  name: "workspace" | "owner",
  source: IdSource<Request>,
): (request: Request) => string {
  if (typeof source === "function") {
    return (request) => source(request) ?? missing(`the function \`${name}\` returns no id`);
  }
  if (typeof source !== "string" || source === "") {
    throw new BoundaryUsageError("configuration", `${name} must be the name of a header or a function`);
  }
  const header = source.toLowerCase();
  return (request) => String(request.headers[header] ?? missing(`the request has no header \`${header}\``));
}

function missing(message: string): never {
  throw new BoundaryUsageError("configuration", message);
}

function denialOf<Request extends IncomingMessage, Response extends ServerResponse>(
  denied: DeniedBy<Request, Response>,
): (request: Request, response: Response) => boolean {
  if (typeof denied === "function") {
    return denied;
  }
  if (!Array.isArray(denied) || !denied.every(Number.isInteger)) {
    throw new BoundaryUsageError("configuration", "denied must be a list of HTTP statuses or a function");
  }
  const statuses = new Set(denied);
  // Without a response, the status is still the default of 200.
  return (_, response) => statuses.has(response.statusCode) && response.headersSent;
}
