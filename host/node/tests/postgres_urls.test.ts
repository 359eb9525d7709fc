/** PostgreSQL URLs: their meaning, refused settings, and messages about unreachable servers. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, copyFile, cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";

import { type BoundaryUsageError, connect, Tracker } from "boundary-usage";

import { type Target, parsePostgresUrl } from "../src/database/postgres_url.ts";
import { uuid } from "./scenario.ts";
import { CuttingProxy, newFolder, newPostgres, Program } from "./support.ts";

const VERIFIED = [{ servername: "db.example.com" }];

const meanings: [string, Record<string, string>, Partial<Target>][] = [
  ["postgres://u:p@h:1/d", {}, { user: "u", password: "p", host: "h", port: 1, database: "d", address: "h:1" }],
  ["postgresql://u%40x:p%2F%3A@h/d%20e", {}, { user: "u@x", password: "p/:", host: "h", port: 5432, database: "d e" }],
  ["postgres://h/d", {}, { user: userInfo().username, password: undefined }],
  ["postgres://u@h", {}, { database: "u" }],
  ["postgres:///d?host=/run/pg&port=7", {}, { host: "/run/pg", port: 7, tls: [false], address: "/run/pg/.s.PGSQL.7" }],
  ["postgres://%2Frun%2Fpg/d", {}, { host: "/run/pg", tls: [false] }],
  ["postgres://a/d?host=b&user=u&password=p%26&dbname=e", {}, { host: "b", user: "u", password: "p&", database: "e" }],
  ["postgres://h/d?user=a&user=b", {}, { user: "b" }],
  ["postgres://h/d?application_name=a+b", {}, { applicationName: "a+b" }],
  ["postgres://h/d", {}, { applicationName: "boundary-usage", connectLimit: undefined }],
  ["postgres://h/d?connect_timeout=7", {}, { connectLimit: 7_000 }],
  ["postgres://[::1]:7/d", {}, { host: "::1", port: 7, address: "[::1]:7" }],
  ["postgres:///d", { PGHOST: "db.example.com" }, { host: "db.example.com", tls: VERIFIED as Target["tls"] }],
  [
    "postgres:///d",
    { PGHOST: "127.0.0.1", PGUSER: "e", PGPASSWORD: "s", PGPORT: "9", PGAPPNAME: "n", PGOPTIONS: "-cx=y" },
    { host: "127.0.0.1", user: "e", password: "s", port: 9, applicationName: "n", options: "-cx=y" },
  ],
  ["postgres:///", { PGDATABASE: "e", PGHOST: "h", PGCONNECT_TIMEOUT: "3" }, { database: "e", connectLimit: 3_000 }],
  ["postgres://h/d", { PGHOST: "x", PGUSER: "", PGPORT: "", PGSERVICE: "" }, { host: "h", port: 5432 }],
  ["postgres://h/d?channel_binding=prefer&target_session_attrs=read-write&gssencmode=disable", {}, { host: "h" }],
];
for (const [url, environment, meaning] of meanings) {
  test(`${url} with ${JSON.stringify(environment)} has the meaning of libpq`, () => {
    assert.partialDeepStrictEqual(parsePostgresUrl(url, environment), meaning);
  });
}

test("a URL without a user is refused if the user of the process has no name", async () => {
  // The child process runs as another user, who can read this copy of the package.
  const folder = await mkdtemp(join(tmpdir(), "boundary-usage-"));
  await chmod(folder, 0o755);
  after(() => rm(folder, { recursive: true }));
  await cp(new URL("../dist/", import.meta.url), folder, { recursive: true });
  await writeFile(join(folder, "package.json"), '{"type":"module"}');
  const node = join(folder, "node");
  await copyFile(process.execPath, node);
  const program = `
    const { parsePostgresUrl } = await import("${pathToFileURL(join(folder, "database", "postgres_url.js")).href}");
    try { parsePostgresUrl("postgres://h/d", {}) } catch ({ kind, message }) { console.log(kind, message) }
    console.log(parsePostgresUrl("postgres://u@h/d", {}).user);`;
  const options = { cwd: "/", uid: 54_321, gid: 54_321 };
  const { stdout } = await promisify(execFile)(node, ["--input-type=module", "--eval", program], options);
  assert.match(stdout, /^configuration .*names no user.*add USER@.*\nu\n$/);
});

test("the default encryption depends on the host", async () => {
  const ca = join(await newFolder(), "ca.crt");
  await writeFile(ca, "certificate");
  const [plain, unverified] = [[false], { rejectUnauthorized: false }];
  const tls = (url: string, environment = {}) => parsePostgresUrl(url, environment).tls as unknown;
  const named = { servername: "db.example.com" };
  for (const remote of ["postgres://db.example.com/d", "postgres://localhost/d?host=db.example.com"]) {
    assert.deepEqual(tls(remote), [named], remote);
  }
  assert.deepEqual(tls("postgres:///d", { PGHOST: "db.example.com" }), [named]);
  assert.deepEqual(tls("postgres:///d", { PGHOST: "10.0.0.7" }), [{}]);
  assert.deepEqual(tls("postgres:///d", { PGHOSTADDR: "10.0.0.7" }), [{}]);
  assert.deepEqual(tls("postgres://localhost/d?hostaddr=10.0.0.7"), [{ servername: "localhost" }]);
  assert.deepEqual(tls("postgres://db.example.com/d?hostaddr=10.0.0.7"), [named]);
  assert.deepEqual(tls("postgres://127.0.0.1.example.com/d"), [{ servername: "127.0.0.1.example.com" }]);
  for (const local of ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "[::1]"]) {
    const [first, second] = tls(`postgres://${local}/d`) as object[];
    assert.partialDeepStrictEqual(first, unverified, local);
    assert.equal(second, false, local);
  }
  assert.deepEqual(tls("postgres://h/d?sslmode=disable"), plain);
  assert.deepEqual(tls("postgres://h/d", { PGSSLMODE: "disable" }), plain);
  assert.partialDeepStrictEqual(tls("postgres://h/d?sslmode=require"), [unverified]);
  assert.partialDeepStrictEqual(tls("postgres://h/d?sslmode=allow"), [false, unverified]);
  assert.deepEqual(tls(`postgres://h/d?sslrootcert=${ca}`), [{ servername: "h", ca: Buffer.from("certificate") }]);
  assert.partialDeepStrictEqual(tls(`postgres://h/d?sslmode=require&ssl-root-cert=${ca}`), [
    { ca: Buffer.from("certificate") },
  ]);
});

const refusals: [string, Record<string, string>, RegExp][] = [
  ["postgres://h1,h2/d", {}, /several hosts.*primary/],
  ["postgres://h1:1,h2:2/d", {}, /several hosts/],
  ["postgres:///d?host=h1,h2", {}, /several hosts/],
  ["postgres:///d", { PGHOST: "h1,h2" }, /several hosts/],
  ["postgres://h/d", { PGSERVICE: "x" }, /PGSERVICE.*service files are not read/],
  ["postgres://h/d?service=hunter2", {}, /service files are not read/],
  ["postgres://h/d?channel_binding=require", {}, /channel_binding.*verify-full/],
  ["postgres://h/d", { PGCHANNELBINDING: "require" }, /PGCHANNELBINDING.*verify-full/],
  ["postgres://h/d?target_session_attrs=standby", {}, /primary server/],
  ["postgres://h/d?gssencmode=require", {}, /GSSAPI/],
  ["postgres://h/d?keepalives_idle=3", {}, /keepalives_idle is not supported/],
  ["postgres://h/d?sslcrl=x", {}, /revocation lists/],
  ["postgres://h/d", { PGREQUIREAUTH: "scram-sha-256" }, /PGREQUIREAUTH is not supported/],
  ["postgres://h/d?hunter2=1", {}, /unknown parameter/],
  ["postgres://h/d?constructor=1", {}, /unknown parameter/],
  ["postgres://h:0/d", {}, /port.*1 to 65535/],
  ["postgres://h:hunter2/d", {}, /port.*1 to 65535/],
  ["postgres:///d", { PGPORT: "5432x" }, /PGPORT.*1 to 65535/],
  ["postgres:///d", { PGPORT: "99999" }, /PGPORT.*1 to 65535/],
  ["postgres://h/d?connect_timeout=soon", {}, /connect_timeout.*1 to 600/],
  ["postgres://h/d?connect_timeout=601", {}, /connect_timeout.*1 to 600/],
  ["postgres://h/d", { PGCONNECT_TIMEOUT: "-1" }, /PGCONNECT_TIMEOUT.*1 to 600/],
  ["postgres://h/d?sslmode=no-verify", {}, /sslmode.*verify-full/],
  ["postgres://h/d", { PGSSLMODE: "hunter2" }, /PGSSLMODE/],
  ["postgres://h/d?sslmode=verify-ca", {}, /needs sslrootcert/],
  ["postgres://h/d?sslmode=require&sslrootcert=system", {}, /needs sslmode=verify-full/],
  ["postgres://h/d?sslrootcert=/nowhere/ca.crt", {}, /cannot read the sslrootcert \/nowhere\/ca\.crt/],
  ["postgres://h/d?hostaddr=name", {}, /hostaddr.*not an IP address/],
  ["postgres://u:hunter2/@h/d", {}, /percent-encode/],
  ["postgres://u:hunter2#@h/d", {}, /percent-encode/],
  ["postgres://u:%hunter2@h/d", {}, /percent sign as %25/],
  ["postgres://u:%00hunter2@h/d", {}, /zero byte/],
];
for (const [url, environment, message] of refusals) {
  test(`${url} with ${JSON.stringify(environment)} is refused with the reason`, () => {
    const isRefused = (error: BoundaryUsageError) => {
      return error.kind === "configuration" && message.test(error.message) && !error.message.includes("hunter2");
    };
    assert.throws(() => parsePostgresUrl(url, environment), isRefused);
  });
}

/** Starts a server. `close` ends it and its connections. */
async function startServer(path: string | undefined, serve: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    serve(socket);
  });
  await new Promise<void>((resolve) =>
    path === undefined ? server.listen(0, "127.0.0.1", resolve) : server.listen(path, resolve),
  );
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const close = () => {
    sockets.forEach((socket) => socket.destroy());
    server.close();
  };
  return { port, close };
}

test("a server without a reply to the connection is given up and named", async () => {
  const { port, close } = await startServer(undefined, () => {});
  const started = performance.now();
  const url = `postgres://u:hunter2@127.0.0.1:${port}/d?connect_timeout=1`;
  await assert.rejects(
    () => connect(url),
    (error: BoundaryUsageError) => {
      assert.equal(error.kind, "unavailable");
      assert.match(
        error.message,
        new RegExp(`^cannot connect to PostgreSQL at 127\\.0\\.0\\.1:${port}: .*tim(e|ing) ?out`),
      );
      return !error.message.includes("hunter2");
    },
  );
  assert.ok(performance.now() - started < 8_000);
  close();
});

test("a server without a reply after the login is given up", { timeout: 40_000 }, async () => {
  const proxy = await CuttingProxy.inFrontOf(await newPostgres());
  await proxy.run("cut silent-request:1");
  await assert.rejects(() => connect(proxy.url), { kind: "unavailable", message: /timeout$/ });
});

test("the message about an unreachable host or socket contains the address", async () => {
  const { port, close } = await startServer(undefined, () => {});
  close();
  for (const host of ["127.0.0.1", "localhost"]) {
    const message = new RegExp(`^cannot connect to PostgreSQL at ${host}:${port}: .*ECONNREFUSED`);
    await assert.rejects(() => connect(`postgres://u@${host}:${port}/d`), { kind: "unavailable", message });
  }
  const folder = await newFolder();
  const message = new RegExp(`^cannot connect to PostgreSQL at ${folder}/\\.s\\.PGSQL\\.5432: .*ENOENT`);
  await assert.rejects(() => connect(`postgres:///d?host=${folder}`), { kind: "unavailable", message });
  await assert.rejects(() => connect("postgres://u@no-such-host.invalid/d"), {
    message: /at no-such-host\.invalid:5432: /,
  });
});

test("the message about a refused connection contains a hint", async () => {
  const url = await newPostgres();
  const unknown = url.replace(/[^/]*$/, "no_such_database");
  const message =
    /^cannot connect to PostgreSQL at .*: database "no_such_database" does not exist; create the database/;
  await assert.rejects(() => connect(unknown), { kind: "unavailable", message });
});

test("with verify-full, a server without TLS is refused, and other modes use it", async () => {
  const url = new URL(await newPostgres());
  const message = /does not support SSL.*turn TLS on in the server.*sslmode=disable/;
  await assert.rejects(() => connect(`${url.href}?sslmode=verify-full`), { kind: "unavailable", message });
  for (const mode of ["allow", "prefer", "disable"]) {
    await (await connect(`${url.href}?sslmode=${mode}`)).close();
  }
});

test("a URL may name the directory of a socket", async () => {
  const url = new URL(await newPostgres());
  const folder = await newFolder();
  await mkdir(join(folder, "pg"));
  const path = join(folder, "pg", ".s.PGSQL.7");
  const { close } = await startServer(path, (socket) => {
    socket.pipe(createConnection(Number(url.port), url.hostname)).pipe(socket);
  });
  const name = url.pathname.slice(1);
  const database = await connect(`postgres:///${name}?host=${folder}/pg&port=7&user=postgres`);
  const tracker = await Tracker.start(uuid("r1"), database);
  tracker.track(uuid("w1"), uuid("u1"), 1, 0);
  await tracker.shutdown();
  await database.close();
  assert.deepEqual(await new Program(url.href).totals(), [1, 1, 1, 0]);
  close();
});
