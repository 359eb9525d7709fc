/** SQLite: the form of its URLs, and files that are deleted or replaced while they are open. */

import assert from "node:assert/strict";
import { link, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test from "node:test";

import { type BoundaryUsageError, connect, Tracker } from "boundary-usage";

import { newFolder, Program } from "./support.ts";
import { uuid } from "./scenario.ts";

async function onFile() {
  const folder = await newFolder();
  const path = join(folder, "usage.db");
  const errors: BoundaryUsageError[] = [];
  const database = await connect(`sqlite:${path}`);
  const settings = {
    flushInterval: Number.POSITIVE_INFINITY,
    onError: (error: BoundaryUsageError) => errors.push(error),
  };
  const tracker = await Tracker.start(uuid("r1"), database, settings);
  tracker.track(uuid("w1"), uuid("u1"), 1, 0);
  await tracker.flush();
  return { folder, path, database, tracker, errors };
}

/** Writes a sound copy. */
function backUp(path: string, to: string): void {
  const database = new DatabaseSync(path);
  database.prepare("VACUUM INTO ?").run(to);
  database.close();
}

/** Removes the database with its log, as an operator does who restores a backup. */
async function remove(path: string): Promise<void> {
  await Promise.all(["", "-wal", "-shm"].map((end) => rm(path + end, { force: true })));
}

const REPLACED = { kind: "unavailable", message: /usage\.db` or its log was deleted or replaced/ };

test("a database file that is deleted fails a flush, and is created again with the same key", async () => {
  const { path, database, tracker, errors } = await onFile();
  const key = await database.hashingKey();
  await remove(path);
  tracker.track(uuid("w2"), uuid("u1"), 2, 0);
  await assert.rejects(() => tracker.flush(), REPLACED);
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 1n, newPeriod: true });
  assert.deepEqual(
    errors.map(({ kind }) => kind),
    ["unavailable", "lost"],
  );
  tracker.track(uuid("w3"), uuid("u1"), 4, 0);
  await tracker.shutdown();
  const again = await connect(`sqlite:${path}?mode=rw`);
  assert.deepEqual(await again.hashingKey(), key);
  assert.deepEqual(await new Program(`sqlite:${path}`).totals(), [2, 1, 6, 0]);
  await Promise.all([database.close(), again.close()]);
});

test("a database file that must exist is not created again, and gets everything when it is back", async () => {
  const folder = await newFolder();
  const path = join(folder, "usage.db");
  await (await connect(`sqlite:${path}`)).close();
  const database = await connect(`sqlite:${path}?mode=rw`);
  const tracker = await Tracker.start(uuid("r1"), database, {
    flushInterval: Number.POSITIVE_INFINITY,
    onError: () => {},
  });
  backUp(path, `${path}.backup`);
  await remove(path);
  tracker.track(uuid("w1"), uuid("u1"), 2, 0);
  await assert.rejects(() => tracker.flush(), REPLACED);
  await assert.rejects(() => tracker.flush(), { kind: "unavailable", message: /there is no database file/ });
  assert.deepEqual(await readdir(folder), ["usage.db.backup"]);
  await rename(`${path}.backup`, path);
  await tracker.shutdown();
  assert.deepEqual(await new Program(`sqlite:${path}`).totals(), [1, 1, 2, 0]);
  await database.close();
});

test("a backup that replaces the database file gets the next flush, and the loss is reported", async () => {
  const { folder, path, database, tracker, errors } = await onFile();
  const backup = join(folder, "backup.db");
  backUp(path, backup);
  tracker.track(uuid("w2"), uuid("u1"), 2, 0);
  await tracker.flush();
  await remove(path);
  await rename(backup, path);
  tracker.track(uuid("w3"), uuid("u1"), 4, 0);
  await assert.rejects(() => tracker.flush(), REPLACED);
  assert.deepEqual(await tracker.flush(), { outcome: "written", flush: 2n, newPeriod: false });
  const lost = errors.find(({ kind }) => kind === "lost");
  assert.match(lost?.message ?? "", /last flush of replica .* is 1, but the database had confirmed 2.*backup/);
  // It is reported once.
  tracker.track(uuid("w3"), uuid("u1"), 8, 0);
  await tracker.shutdown();
  assert.equal(errors.filter(({ kind }) => kind === "lost").length, 1);
  // What the backup held, and all since.
  assert.deepEqual(await new Program(`sqlite:${path}`).totals(), [2, 1, 13, 0]);
  await database.close();
});

test("a file that is replaced between two connections, or loses its log, is noticed", async () => {
  const { path, database, tracker } = await onFile();
  const copy = `${path}.copy`;
  backUp(path, copy);
  for (const act of [() => rename(copy, path), () => rm(`${path}-wal`)]) {
    await act();
    tracker.track(uuid("w2"), uuid("u1"), 2, 0);
    await assert.rejects(() => tracker.flush(), REPLACED);
    assert.equal((await tracker.flush()).outcome, "written");
  }
  await tracker.shutdown();
  assert.deepEqual(await new Program(`sqlite:${path}`).totals(), [2, 1, 5, 0]);
  await database.close();
});

test("another database in the place of the first is refused, and the first one gets all when it is back", async () => {
  const { path, database, tracker } = await onFile();
  const first = `${path}.first`;
  await link(path, first);
  await rm(path);
  await Promise.all(["-wal", "-shm"].map((end) => rename(path + end, first + end)));
  await (await connect(`sqlite:${path}`)).close();
  tracker.track(uuid("w2"), uuid("u1"), 2, 0);
  await assert.rejects(() => tracker.flush(), REPLACED);
  await assert.rejects(() => tracker.flush(), { kind: "refused", message: /another hashing key/ });
  await remove(path);
  await Promise.all(["", "-wal", "-shm"].map((end) => rename(first + end, path + end).catch(() => undefined)));
  await tracker.shutdown();
  assert.deepEqual(await new Program(`sqlite:${path}`).totals(), [2, 1, 3, 0]);
  await database.close();
});

test("a database that is reached through a symbolic link is watched, too", async () => {
  const folder = await newFolder();
  await mkdir(join(folder, "data"));
  await symlink(join(folder, "data", "usage.db"), join(folder, "link.db"));
  const database = await connect(`sqlite:${join(folder, "link.db")}`);
  const tracker = await Tracker.start(uuid("r1"), database, {
    flushInterval: Number.POSITIVE_INFINITY,
    onError: () => {},
  });
  for (let flush = 0; flush < 2; flush += 1) {
    tracker.track(uuid("w1"), uuid("u1"), 1, 0);
    await tracker.flush();
  }
  await rm(join(folder, "data", "usage.db"));
  tracker.track(uuid("w1"), uuid("u1"), 1, 0);
  await assert.rejects(() => tracker.flush(), { kind: "unavailable" });
});

test("SQLite URLs name the file that the documented rule says", async () => {
  const folder = await newFolder();
  await mkdir(join(folder, "a%2"));
  const names: [string, string][] = [
    ["my%20usage.db", "my usage.db"],
    ["my usage.db", "my usage.db"],
    ["100%.db", "100%.db"],
    ["100%25.db", "100%.db"],
    ["a%2/x#y&z+.db", "a%2/x#y&z+.db"],
    ["q%3Fmode=rw", "q?mode=rw"],
    ["%c3%BC.db?mode=rwc", "ü.db"],
    ["twice%2520.db", "twice%20.db"],
    ["empty.db?", "empty.db"],
  ];
  for (const [written, name] of names) {
    for (const slashes of ["", "//"]) {
      await remove(join(folder, name));
      const url = `sqlite:${slashes}${folder}/${written}`;
      await (await connect(url)).close();
      assert.ok((await readFile(join(folder, name))).length > 0, url);
      await (await connect(`sqlite:${folder}/${written.split("?", 1)[0]}?mode=rw`)).close();
    }
  }
});

test("SQLite URLs that name no file are refused, and nothing is created", async () => {
  const folder = await newFolder();
  const refused: [string, RegExp][] = [
    ["sqlite:", /must be a file/],
    ["sqlite://", /must be a file/],
    ["sqlite:?mode=rw", /must be a file/],
    ["sqlite::memory:", /must be a file/],
    ["sqlite:%3Amemory%3A", /must be a file/],
    ["sqlite:file:usage.db", /must be a file/],
    ["sqlite:fi%6Ce:usage.db", /must be a file/],
    [`sqlite:${folder}/x.db?mode=ro`, /only parameters/],
    [`sqlite:${folder}/x.db?mode=rwc&cache=shared`, /only parameters/],
    [`sqlite:${folder}/x.db?mode=memory`, /only parameters/],
    [`sqlite:${folder}/%ff.db`, /not UTF-8/],
    [`sqlite:${folder}/%00.db`, /zero byte/],
    [`sqlite:${folder}`, /is a directory/],
    [`sqlite:${folder}/none/usage.db`, /no directory/],
    ["sqlite://user@host/usage.db", /no user, password or host/],
  ];
  for (const [url, message] of refused) {
    await assert.rejects(() => connect(url), { kind: "configuration", message }, url);
  }
  await assert.rejects(() => connect(`sqlite:${folder}/x.db?mode=rw`), { kind: "unavailable", message: /x\.db/ });
  assert.deepEqual(await readdir(folder), []);
  await writeFile(join(folder, "text"), "no database");
  await assert.rejects(() => connect(`sqlite:${folder}/text/usage.db`), {
    kind: "configuration",
    message: /no directory/,
  });
});
