/** SQLite: its URLs, and files that are deleted or replaced while they are open. */

import assert from "node:assert/strict";
import { link, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test from "node:test";

import { type BoundaryUsageError, connect, Tracker } from "boundary-usage";

import { uuid } from "./scenario.ts";
import { MANUAL, newFolder, Program } from "./support.ts";

/** Starts a tracker on a new file, and flushes once. */
async function startedOnFile() {
  const folder = await newFolder();
  const path = join(folder, "usage.db");
  const errors: BoundaryUsageError[] = [];
  const database = await connect(`sqlite:${path}`);
  const onError = (error: BoundaryUsageError) => errors.push(error);
  const tracker = await Tracker.start(uuid("r1"), database, { ...MANUAL, onError });
  tracker.track(uuid("w1"), uuid("u1"), 1, 0);
  await tracker.flush();
  return { folder, path, database, tracker, errors };
}

/** Writes a consistent copy of a database. */
function backUp(path: string, to: string): void {
  const database = new DatabaseSync(path);
  database.prepare("VACUUM INTO ?").run(to);
  database.close();
}

/** Removes a database with its log, as before the restore of a backup. */
async function remove(path: string): Promise<void> {
  await Promise.all(["", "-wal", "-shm"].map((end) => rm(path + end, { force: true })));
}

const REPLACED = { kind: "unavailable", message: /usage\.db` or its log was deleted or replaced/ };

test("a deleted database file is created again with the same key", async () => {
  const { path, database, tracker, errors } = await startedOnFile();
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

test("with mode=rw, a deleted file is not created, and gets all activity later", async () => {
  const folder = await newFolder();
  const path = join(folder, "usage.db");
  await (await connect(`sqlite:${path}`)).close();
  const database = await connect(`sqlite:${path}?mode=rw`);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
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

test("a restored backup gets the next flush, and the loss is reported", async () => {
  const { folder, path, database, tracker, errors } = await startedOnFile();
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
  // The loss is reported once.
  tracker.track(uuid("w3"), uuid("u1"), 8, 0);
  await tracker.shutdown();
  assert.equal(errors.filter(({ kind }) => kind === "lost").length, 1);
  // The totals contain the usage in the backup and all later activity.
  assert.deepEqual(await new Program(`sqlite:${path}`).totals(), [2, 1, 13, 0]);
  await database.close();
});

test("a replaced file and a deleted log are noticed", async () => {
  const { path, database, tracker } = await startedOnFile();
  const copy = `${path}.copy`;
  backUp(path, copy);
  for (const change of [() => rename(copy, path), () => rm(`${path}-wal`)]) {
    await change();
    tracker.track(uuid("w2"), uuid("u1"), 2, 0);
    await assert.rejects(() => tracker.flush(), REPLACED);
    assert.equal((await tracker.flush()).outcome, "written");
  }
  await tracker.shutdown();
  assert.deepEqual(await new Program(`sqlite:${path}`).totals(), [2, 1, 5, 0]);
  await database.close();
});

test("a database with another key is refused, and the first one gets all activity", async () => {
  const { path, database, tracker } = await startedOnFile();
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

test("the target of a symbolic link is watched", async () => {
  const folder = await newFolder();
  await mkdir(join(folder, "data"));
  await symlink(join(folder, "data", "usage.db"), join(folder, "link.db"));
  const database = await connect(`sqlite:${join(folder, "link.db")}`);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  for (let flush = 0; flush < 2; flush += 1) {
    tracker.track(uuid("w1"), uuid("u1"), 1, 0);
    await tracker.flush();
  }
  await rm(join(folder, "data", "usage.db"));
  tracker.track(uuid("w1"), uuid("u1"), 1, 0);
  await assert.rejects(() => tracker.flush(), { kind: "unavailable" });
});

test("SQLite URLs name files by the documented rules", async () => {
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

test("SQLite URLs that name no file are refused, and create nothing", async () => {
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
  await writeFile(join(folder, "text"), "not a database");
  await assert.rejects(() => connect(`sqlite:${folder}/text/usage.db`), {
    kind: "configuration",
    message: /no directory/,
  });
});
