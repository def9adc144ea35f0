// Scripted sessions of ioredis and node-redis against a running three-node cluster; tests/redis_clients.rs starts it.
//
// Usage: node redis_clients.mjs PORT PORT PORT, with both packages in a node_modules directory that
// LANEKV_REDIS_NODE names.
//
// A line `KILL n` on standard output asks for that; the answer comes on standard input.

import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import readline from "node:readline";

const require = createRequire(process.env.LANEKV_REDIS_NODE + "/");
const Redis = require("ioredis");
const redis = require("redis");
const ports = process.argv.slice(2).map(Number);
const host = "127.0.0.1";
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function kill(node) {
  console.log(`KILL ${node}`);
  assert.equal((await lines.next()).value, "killed");
}

async function ioredis() {
  const a = new Redis(ports[0], host);
  const b = new Redis(ports[1], host);
  await a.flushall();
  assert.equal(await a.set("k", "v", "EX", 100), "OK");
  assert.equal(await b.get("k"), "v");
  assert.equal(await a.get("none"), null);
  assert.deepEqual(await a.mget("k", "none"), ["v", null]);
  assert.equal(await b.incrby("n", 5), 5);
  const many = await Promise.all(Array.from({ length: 1000 }, (_, i) => a.set(`p${i}`, i)));
  assert.ok(many.every((reply) => reply === "OK"));
  assert.deepEqual(await a.multi().set("m", 1).incr("m").exec(), [
    [null, "OK"],
    [null, 2],
  ]);
  await a.watch("m");
  await b.set("m", 9);
  assert.equal(await a.multi().incr("m").exec(), null);
  const sub = new Redis(ports[2], host);
  const heard = new Promise((resolve) => sub.on("message", (channel, message) => resolve([channel, message])));
  await sub.subscribe("news");
  await b.publish("news", "hello");
  assert.deepEqual(await heard, ["news", "hello"]);
  let keys = 0;
  for await (const found of a.scanStream({ match: "p*", count: 100 })) keys += found.length;
  assert.equal(keys, 1000);
  await assert.rejects(a.lpush("l", 1), /unknown command/);
  for (const client of [a, b, sub]) client.disconnect();
  console.log("ioredis: fine");
}

async function nodeRedis() {
  for (const RESP of [2, 3]) {
    const a = redis.createClient({ socket: { host, port: ports[0] }, RESP });
    const b = redis.createClient({ socket: { host, port: ports[1] }, RESP });
    await a.connect();
    await b.connect();
    await a.set("k", "v", { EX: 100 });
    assert.equal(await b.get("k"), "v");
    assert.ok((await b.ttl("k")) > 90);
    assert.deepEqual(await a.mGet(["k", "none"]), ["v", null]);
    assert.deepEqual(await a.multi().set("m", "1").incr("m").exec(), ["OK", 2]);
    const sub = a.duplicate();
    await sub.connect();
    const heard = new Promise((resolve) => sub.subscribe("news", (message) => resolve(message)));
    await new Promise((resolve) => setTimeout(resolve, 50));
    await b.publish("news", "hello");
    assert.equal(await heard, "hello");
    for (const client of [sub, a, b]) client.destroy();
  }
  console.log("node-redis: fine");
}

async function clusterMode() {
  const nodes = new Redis.Cluster([{ host, port: ports[0] }], { redisOptions: { commandTimeout: 5000 } });
  let failed = 0;
  let wrong = 0;
  for (let i = 0; i < 1500; i++) {
    if (i === 700) await kill(1);
    try {
      await nodes.set(`c${i}`, i);
      if ((await nodes.get(`c${i}`)) !== String(i)) wrong++;
    } catch {
      failed++;
    }
  }
  console.log(`ioredis in cluster mode: ${failed} of 1500 operations failed, ${wrong} were wrong`);
  assert.ok(failed <= 5 && wrong === 0);
  nodes.disconnect();
}

await ioredis();
await nodeRedis();
await clusterMode();
console.log("all sessions ended well");
process.exit(0);
