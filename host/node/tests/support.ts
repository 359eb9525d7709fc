/**
 * The equipment of the tests: databases of their own, and the program of the Rust host.
 *
 * `make test-node` runs them with a PostgreSQL server and the program, which it names in the environment.
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

let databases = 0;

export function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) {
    throw new Error(`${name} is not set; run \`make test-node\`, which starts what the tests need`);
  }
  return value;
}

/** The program `boundary-usage`, on one database. */
export class Program {
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  /** Starts it; `ended` answers what it said. */
  start(...parameters: string[]): { child: ChildProcess; ended: Promise<any> } {
    const env = { ...process.env, BOUNDARY_USAGE_DATABASE: this.#url };
    const child = spawn(variable("BOUNDARY_USAGE_TEST_PROGRAM"), ["--format", "json", ...parameters], {
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise((resolve, reject) => {
      let answer = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (answer += text));
      child.on("error", reject);
      child.on("close", (code) => {
        code === 0 ? resolve(JSON.parse(answer)) : reject(new Error(`${parameters.join(" ")} ended with ${code}`));
      });
    });
    return { child, ended };
  }

  /** Runs it to its end; what it answers. */
  json(...parameters: string[]): Promise<any> {
    return this.start(...parameters).ended;
  }

  /** Closes the period; uniques, allowed, denied. */
  async totals(): Promise<number[]> {
    const summary = await this.json("collect");
    return ["unique_workspaces", "unique_users", "allowed_requests", "denied_requests"].map((name) => summary[name]);
  }
}

/**
 * A proxy in front of a PostgreSQL database, which cuts connections: the commands are in
 * `tests/src/bin/postgres-proxy.rs`.
 */
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
    // It ends with its standard input, which this process holds.
    const child = spawn(variable("BOUNDARY_USAGE_TEST_POSTGRES_PROXY"), [url], { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    return new CuttingProxy(await line(lines), child.stdin, lines);
  }

  /** Runs a command, and returns what it prints. One at a time. */
  ask(command: string): Promise<string> {
    this.#input.write(`${command}\n`);
    return line(this.#lines);
  }
}

async function line(lines: AsyncIterator<string>): Promise<string> {
  const { done, value } = await lines.next();
  if (done) {
    throw new Error("the proxy has ended");
  }
  return value;
}

/** A folder that is removed with the tests. */
export async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "boundary-usage-"));
  after(() => rm(folder, { recursive: true }));
  return folder;
}

/** The URL of a SQLite file that does not exist yet. */
export async function newSqlite(): Promise<string> {
  return `sqlite:${join(await newFolder(), "usage.db")}`;
}

/** The URL of a new database of the tests' server. */
export async function newPostgres(): Promise<string> {
  const server = variable("BOUNDARY_USAGE_TEST_POSTGRES");
  databases += 1;
  const name = `node_${process.pid}_${databases}`;
  await sql(server, `CREATE DATABASE ${name}`);
  return server.replace(/[^/]*$/, name);
}

/** Runs SQL on a PostgreSQL database, behind the library's back. */
export async function sql(url: string, statement: string): Promise<any[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query(statement)).rows;
  } finally {
    await client.end();
  }
}

/** Reads a database of either kind behind the library's back. */
export async function rows(url: string, query: string): Promise<any[]> {
  if (!url.startsWith("sqlite")) {
    return sql(url, query);
  }
  const database = new DatabaseSync(url.slice("sqlite:".length));
  try {
    return database.prepare(query).all();
  } finally {
    database.close();
  }
}

/** A test on a new database of each kind. */
export function onEachDatabase(name: string, promise: (url: string) => Promise<void>): void {
  test(`${name} (sqlite)`, async () => promise(await newSqlite()));
  test(`${name} (postgres)`, async () => promise(await newPostgres()));
}
