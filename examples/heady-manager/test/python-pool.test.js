'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { once } = require('node:events');
const test = require('node:test');

const { PythonPool } = require('../lib/python-pool');

const SCRIPT = `
import json, os, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    what = request["payload"]["do"]
    if what == "crash":
        os._exit(3)
    if what == "hang":
        sys.stdin.read()
    print(json.dumps({"id": request["id"], "result": what}), flush=True)
`;

function startPool(t, options = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'heady-pool-'));
  const script = path.join(folder, 'worker.py');
  fs.writeFileSync(script, SCRIPT);
  const log = { warn() {} };
  const pool = new PythonPool({ script, size: 1, env: process.env, timeoutMs: 5000, queueMax: 2, log, ...options });
  pool.start();
  t.after(() => {
    pool.kill();
    fs.rmSync(folder, { recursive: true, force: true });
  });
  return pool;
}

test('a crash fails only the request in hand; the next one finds a new worker', async (t) => {
  const pool = startPool(t);
  await once(pool, 'ready');
  await assert.rejects(pool.run({ do: 'crash' }), { code: 'crashed' });
  assert.equal(await pool.run({ do: 'work' }), 'work');
  assert.equal(pool.status().restarts, 1);
});

test('a worker that does not answer in time is replaced', async (t) => {
  const pool = startPool(t, { timeoutMs: 300 });
  await once(pool, 'ready');
  await assert.rejects(pool.run({ do: 'hang' }), { code: 'timeout' });
  await once(pool, 'ready');
  assert.equal(await pool.run({ do: 'work' }), 'work');
});

test('a full queue refuses at once', async (t) => {
  const pool = startPool(t);
  await once(pool, 'ready');
  const held = ['work', 'work', 'work'].map((what) => pool.run({ do: what }));
  await assert.rejects(pool.run({ do: 'work' }), { code: 'busy' });
  assert.deepEqual(await Promise.all(held), ['work', 'work', 'work']);
});

test('draining finishes what waits and leaves no process', async (t) => {
  const pool = startPool(t);
  const held = pool.run({ do: 'work' });
  const drained = pool.drain();
  await assert.rejects(pool.run({ do: 'work' }), { code: 'closed' });
  assert.equal(await held, 'work');
  await drained;
  assert.equal(pool.workers.size, 0);
});
