/** The middleware function in proxies from npm, with clients over sockets. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, createServer, request as send } from "node:http";
import type { IncomingMessage, RequestListener, Server } from "node:http";
import { type AddressInfo, connect as connectSocket } from "node:net";
import type { Duplex } from "node:stream";
import test from "node:test";

import { type BoundaryUsageError, connect, middleware, type MiddlewareOptions, Tracker } from "boundary-usage";
import express from "express";
import { createProxyServer } from "http-proxy-3";
import { createProxyMiddleware } from "http-proxy-middleware";

import { numbered, uuid } from "./scenario.ts";
import { MANUAL, newSqlite, onEachDatabase, Program } from "./support.ts";

const CLIENTS = 8;
const REQUESTS = 60;

/** Starts a server on a free port. Returns its port, and a function that ends the server and all responses. */
async function listening(server: Server): Promise<{ port: number; end: () => Promise<void> }> {
  const closed: Promise<unknown>[] = [];
  server.prependListener("request", (_, response) => closed.push(once(response, "close")));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const end = async () => {
    closed.push(once(server, "close"));
    server.close();
    server.closeAllConnections();
    await Promise.all(closed);
  };
  return { port: (server.address() as AddressInfo).port, end };
}

/** The upstream server. It never ends its response for `/endless`. */
const upstream: RequestListener = (request, response) => {
  response.write(`hello from ${request.url}`);
  if (request.url !== "/endless") {
    response.end();
  }
};

/** Whether the proxy's policy denies a request. */
function isForbidden(request: IncomingMessage): boolean {
  return request.url?.startsWith("/forbidden") === true;
}

/** Starts a tracker on a database, and collects what was tracked when the returned function is called. */
async function trackerOn(url: string) {
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  const totals = async () => {
    await tracker.shutdown();
    await database.close();
    return new Program(url).totals();
  };
  return { tracker, totals };
}

/** Sends a request. Returns its status, or 0 if the client disconnects after the first byte of the body. */
async function status(agent: Agent, port: number, path: string, headers: Record<string, string>): Promise<number> {
  const client = send({ agent, port, path, headers });
  client.end();
  const [response] = (await once(client, "response")) as [IncomingMessage];
  if (path === "/endless") {
    await once(response, "data");
    response.destroy();
    return 0;
  }
  await once(response.resume(), "end");
  return response.statusCode ?? 0;
}

/** Runs clients in parallel. Returns unique workspaces, unique users, allowed and denied requests as they saw them. */
async function runClients(port: number, deniedStatus: number): Promise<number[]> {
  let [allowed, denied] = [0, 0];
  const [workspaces, owners] = [new Set<string>(), new Set<string>()];
  const client = async (number: number) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (let index = 0; index < REQUESTS; index += 1) {
      const path = ["/allowed", "/forbidden", "/allowed", "/endless", "/anonymous"][(number + index) % 5] ?? "";
      const [workspace, owner] = [numbered(1 + (index % 7)), numbered(100 + number)];
      const headers = path === "/anonymous" ? {} : { "X-Workspace": workspace, "x-owner": owner };
      const seen = await status(agent, port, path, headers as Record<string, string>);
      assert.equal(seen, path === "/endless" ? 0 : path === "/forbidden" ? deniedStatus : 200);
      if (path !== "/anonymous") {
        workspaces.add(workspace);
        owners.add(owner);
        [allowed, denied] = seen === deniedStatus ? [allowed, denied + 1] : [allowed + 1, denied];
      }
    }
    agent.destroy();
  };
  await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)));
  return [workspaces.size, owners.size, allowed, denied];
}

onEachDatabase("clients of http-proxy-middleware in Express count as they see it", async (url) => {
  const { tracker, totals } = await trackerOn(url);
  const target = await listening(createServer(upstream));
  const usage = middleware(tracker, { onError: () => {} });
  const app = express();
  app.use(usage);
  app.use((request, response, next) => (isForbidden(request) ? response.sendStatus(403) : next()));
  app.use(createProxyMiddleware({ target: `http://127.0.0.1:${target.port}` }));
  const proxy = await listening(createServer(app));
  const seen = await runClients(proxy.port, 403);
  await proxy.end();
  await target.end();
  const [, , allowed, denied] = seen;
  assert.deepEqual(usage.counts(), { allowed, denied, unidentified: (CLIENTS * REQUESTS) / 5, refused: 0 });
  assert.deepEqual(await totals(), seen);
});

onEachDatabase("clients of http-proxy-3 in node:http count as they see it", async (url) => {
  const { tracker, totals } = await trackerOn(url);
  const target = await listening(createServer(upstream));
  const usage = middleware(tracker, { onError: () => {} });
  const upstreams = createProxyServer({ target: `http://127.0.0.1:${target.port}` });
  // The upstream connection of a client that has disconnected ends with an error.
  upstreams.on("error", () => {});
  const server = createServer((request, response) => {
    usage(request, response);
    if (isForbidden(request)) {
      response.writeHead(407).end();
    } else {
      upstreams.web(request, response);
    }
  });
  const proxy = await listening(server);
  const seen = await runClients(proxy.port, 407);
  await proxy.end();
  await target.end();
  const [, , allowed, denied] = seen;
  assert.deepEqual(usage.counts(), { allowed, denied, unidentified: (CLIENTS * REQUESTS) / 5, refused: 0 });
  assert.deepEqual(await totals(), seen);
});

test("CONNECT and upgrade requests count by the decision that the proxy records", async () => {
  const { tracker, totals } = await trackerOn(await newSqlite());
  const usage = middleware(tracker);
  const server = createServer((request, response) => usage(request, response, () => response.end()));
  for (const event of ["connect", "upgrade"]) {
    server.on(event, (request: IncomingMessage, socket: Duplex) => {
      const isDenied = request.url?.includes("denied") === true;
      usage.record(request, isDenied ? "denied" : "allowed");
      const accepted = event === "connect" ? "200 Connection Established" : "101 Switching Protocols";
      socket.end(`HTTP/1.1 ${isDenied ? "403 Forbidden" : accepted}\r\n\r\n`);
    });
  }
  const proxy = await listening(server);
  const headers = `Host: test\r\nx-workspace: ${uuid("w1")}\r\nx-owner: ${uuid("u1")}`;
  const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
  for (const [start, expected] of [
    ["CONNECT allowed.test:443 HTTP/1.1\r\n", "200"],
    ["CONNECT denied.test:443 HTTP/1.1\r\n", "403"],
    [`GET /socket HTTP/1.1\r\n${upgrade}`, "101"],
    [`GET /denied HTTP/1.1\r\n${upgrade}`, "403"],
    ["GET / HTTP/1.1\r\n", "200"],
  ]) {
    const socket = connectSocket(proxy.port, "127.0.0.1");
    socket.write(`${start}${headers}\r\n\r\n`);
    const [reply] = await once(socket, "data");
    assert.match(String(reply), new RegExp(`^HTTP/1.1 ${expected}`));
    socket.destroy();
  }
  await proxy.end();
  assert.deepEqual(usage.counts(), { allowed: 3, denied: 2, unidentified: 0, refused: 0 });
  assert.deepEqual(await totals(), [1, 1, 3, 2]);
});

/** Sends requests to a server whose handler is `handle`, each with these headers. Returns their statuses. */
async function statuses(handle: RequestListener, ...requests: Record<string, string>[]): Promise<number[]> {
  const server = await listening(createServer(handle));
  const agent = new Agent();
  const seen: number[] = [];
  for (const headers of requests) {
    seen.push(await status(agent, server.port, "/", headers));
  }
  await server.end();
  return seen;
}

test("functions identify requests and decide about them", async () => {
  const { tracker, totals } = await trackerOn(await newSqlite());
  const usage = middleware(tracker, {
    workspace: (request) => request.headers.authorization?.slice("Bearer ".length),
    owner: () => uuid("u1"),
    denied: (_, response) => response.hasHeader("x-denied"),
  });
  const handle: RequestListener = (request, response) => {
    usage(request, response, () => {
      // An upstream's own 403 is not a denial of the proxy.
      response.statusCode = 403;
      response.setHeaders(new Headers(request.headers["x-deny"] === undefined ? {} : { "x-denied": "policy" }));
      response.end();
    });
  };
  const authorization = `Bearer ${uuid("w1")}`;
  assert.deepEqual(await statuses(handle, { authorization }, { authorization, "x-deny": "1" }), [403, 403]);
  assert.deepEqual(usage.counts(), { allowed: 1, denied: 1, unidentified: 0, refused: 0 });
  assert.deepEqual(await totals(), [1, 1, 1, 1]);
});

test("requests without a valid identity pass untracked, and few of them are reported", async () => {
  const { tracker, totals } = await trackerOn(await newSqlite());
  const errors: BoundaryUsageError[] = [];
  const usage = middleware(tracker, { onError: (error) => void errors.push(error) });
  const handle: RequestListener = (request, response) => usage(request, response, () => response.end());
  const invalid = { "x-workspace": "../../etc/passwd", "x-owner": uuid("u1") };
  const requests = Array.from({ length: 9 }, (_, index) => (index % 2 === 0 ? {} : invalid));
  assert.deepEqual(new Set(await statuses(handle, ...requests)), new Set([200]));
  assert.deepEqual(usage.counts(), { allowed: 0, denied: 0, unidentified: 9, refused: 0 });
  assert.deepEqual(
    errors.map(({ message }) => /: (\d+);/.exec(message)?.[1]),
    ["1", "2", "4", "8"],
  );
  assert.match(errors[0]?.message ?? "", /no header `x-workspace`/);
  assert.match(errors[1]?.message ?? "", /is not a UUID/);
  assert.deepEqual(await totals(), [0, 0, 0, 0]);
});

test("requests pass if a function, `onError` or the tracker fails", async () => {
  const { tracker, totals } = await trackerOn(await newSqlite());
  const fail = () => {
    throw new Error("the function failed");
  };
  const ids = { workspace: () => uuid("w1"), owner: () => uuid("u1") };
  const options: MiddlewareOptions[] = [
    { ...ids, workspace: fail },
    { ...ids, owner: (() => Symbol("1")) as never },
    { ...ids, denied: fail },
    ids,
  ];
  const usages = options.map((one) => middleware(tracker, { ...one, onError: fail }));
  const handle: RequestListener = (request, response) => {
    usages.forEach((usage) => usage(request, response));
    response.end();
  };
  assert.deepEqual(await statuses(handle, {}), [200]);
  assert.deepEqual(await totals(), [1, 1, 1, 0]);
  assert.deepEqual(await statuses(handle, {}), [200]);
  assert.deepEqual(
    usages.map((usage) => usage.counts()),
    [
      { allowed: 0, denied: 0, unidentified: 2, refused: 0 },
      // The tracker is stopped and refuses the second request.
      { allowed: 0, denied: 0, unidentified: 1, refused: 1 },
      { allowed: 0, denied: 0, unidentified: 0, refused: 2 },
      { allowed: 1, denied: 0, unidentified: 0, refused: 1 },
    ],
  );
});

test("a request whose client has disconnected before the middleware counts once", async () => {
  const { tracker, totals } = await trackerOn(await newSqlite());
  const usage = middleware(tracker);
  const { promise, resolve } = Promise.withResolvers<void>();
  const server = createServer(async (request, response) => {
    await once(response, "close");
    usage(request, response);
    resolve();
  });
  const proxy = await listening(server);
  const client = send({ port: proxy.port, headers: { "x-workspace": uuid("w1"), "x-owner": uuid("u1") } });
  client.on("error", () => {});
  client.end();
  await once(server, "request");
  client.destroy();
  await promise;
  await proxy.end();
  assert.deepEqual(await totals(), [1, 1, 1, 0]);
});

test("invalid options of the middleware are refused by name", async () => {
  const { tracker, totals } = await trackerOn(await newSqlite());
  for (const [name, values] of [
    ["workspace", ["", 1, null]],
    ["owner", ["", {}]],
    ["denied", [403, ["403"], null]],
    ["onError", [null, "log"]],
  ] as const) {
    for (const value of values) {
      const create = () => middleware(tracker, { [name]: value } as unknown as MiddlewareOptions);
      assert.throws(create, { kind: "configuration", message: new RegExp(`^${name} `) }, String(value));
    }
  }
  await totals();
});
