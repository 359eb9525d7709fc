/**
 * Support for the tests: new databases, the program of the Rust host, and a proxy that cuts connections.
 *
 * `make test-node` starts a PostgreSQL server, and names it and the programs in environment variables.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import type { Writable } from "node:stream";
import test, { after } from "node:test";

import pg from "pg";

/** Options of a tracker that only the test flushes, and that ignores errors. */
export const MANUAL = { flushInterval: Number.POSITIVE_INFINITY, onError: () => {} };

let databases = 0;

/** Returns the value of an environment variable that `make test-node` sets. */
export function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) {
    throw new Error(`${name} is not set; run \`make test-node\``);
  }
  return value;
}

/** The program `boundary-usage` of the Rust host, on one database. */
export class Program {
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  /** Starts the program. `output` resolves to its parsed output when it ends. */
  start(...parameters: string[]): { child: ChildProcess; output: Promise<any> } {
    const env = { ...process.env, BOUNDARY_USAGE_DATABASE: this.#url };
    const child = spawn(variable("BOUNDARY_USAGE_TEST_PROGRAM"), ["--format", "json", ...parameters], {
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const output = new Promise((resolve, reject) => {
      let written = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (written += text));
      child.on("error", reject);
      child.on("close", (code) => {
        if (code === 0) {
          resolve(JSON.parse(written));
        } else {
          reject(new Error(`${parameters.join(" ")} ended with ${code}`));
        }
      });
    });
    return { child, output };
  }

  /** Runs the program, and returns its parsed output. */
  json(...parameters: string[]): Promise<any> {
    return this.start(...parameters).output;
  }

  /** Closes the period. Returns unique workspaces, unique users, allowed and denied requests. */
  async totals(): Promise<number[]> {
    const summary = await this.json("collect");
    return ["unique_workspaces", "unique_users", "allowed_requests", "denied_requests"].map((name) => summary[name]);
  }
}

/** A proxy that cuts connections to a PostgreSQL server. `tests/src/bin/postgres-proxy.rs` lists its commands. */
export class CuttingProxy {
  readonly url: string;
  readonly #input: Writable;
  readonly #lines: AsyncIterator<string>;

  private constructor(url: string, input: Writable, lines: AsyncIterator<string>) {
    this.url = url;
    this.#input = input;
    this.#lines = lines;
  }

  static async inFrontOf(url: string): Promise<CuttingProxy> {
    // The proxy ends when this process ends, because that closes its standard input.
    const program = variable("BOUNDARY_USAGE_TEST_POSTGRES_PROXY");
    const child = spawn(program, [url], { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    return new CuttingProxy(await nextLine(lines), child.stdin, lines);
  }

  /** Runs a command, and returns the line that it prints. Run one command at a time. */
  run(command: string): Promise<string> {
    this.#input.write(`${command}\n`);
    return nextLine(this.#lines);
  }
}

/** Starts a PostgreSQL server and its hot standby. Returns their URLs. */
export async function primaryAndStandby(): Promise<[string, string]> {
  // The servers end when this process ends, because that closes their standard input.
  const child = spawn(variable("BOUNDARY_USAGE_TEST_POSTGRES_STANDBY"), { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  return [await nextLine(lines), await nextLine(lines)];
}

async function nextLine(lines: AsyncIterator<string>): Promise<string> {
  const { done, value } = await lines.next();
  if (done) {
    throw new Error("the program has ended");
  }
  return value;
}

/** Creates a folder that is removed after the tests. */
export async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "boundary-usage-"));
  after(() => rm(folder, { recursive: true }));
  return folder;
}

/** Returns the URL of a SQLite file that does not exist yet. */
export async function newSqlite(): Promise<string> {
  return `sqlite:${join(await newFolder(), "usage.db")}`;
}

/** Creates a database on the tests' PostgreSQL server, and returns its URL. */
export async function newPostgres(): Promise<string> {
  const server = variable("BOUNDARY_USAGE_TEST_POSTGRES");
  databases += 1;
  const name = `node_${process.pid}_${databases}`;
  await sql(server, `CREATE DATABASE ${name}`);
  return server.replace(/[^/]*$/, name);
}

/** Runs a statement on a PostgreSQL database, on a connection of its own. */
export async function sql(url: string, statement: string): Promise<any[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query(statement)).rows;
  } finally {
    await client.end();
  }
}

/** Calls a function with a connection of its own to a SQLite file. */
export function inSqlite<T>(url: string, call: (database: DatabaseSync) => T): T {
  const database = new DatabaseSync(url.slice("sqlite:".length));
  try {
    return call(database);
  } finally {
    database.close();
  }
}

/** Runs a query on a database of either kind, on a connection of its own. */
export async function rows(url: string, query: string): Promise<any[]> {
  return url.startsWith("sqlite") ? inSqlite(url, (database) => database.prepare(query).all()) : sql(url, query);
}

/** Defines a test that runs on a new database of each kind. */
export function onEachDatabase(name: string, run: (url: string) => Promise<void>): void {
  test(`${name} (sqlite)`, async () => run(await newSqlite()));
  test(`${name} (postgres)`, async () => run(await newPostgres()));
}
