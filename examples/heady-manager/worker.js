'use strict';

// The worker service: takes batches from heady-manager over the private network, runs them
// through its own Python process and hands the results back.

const path = require('node:path');

const { load, pythonEnv } = require('./lib/config');
const { createLogger } = require('./lib/logger');
const { PythonPool } = require('./lib/python-pool');

const POLL_MS = 1000;
const MAX_PAUSE_MS = 15_000;
const HEARTBEAT_MS = 30_000;

const config = load();
const log = createLogger({ format: config.logFormat, level: config.logLevel });
const base = `http://${process.env.HEADY_MANAGER_HOSTPORT || '127.0.0.1:3300'}`;
const stopping = new AbortController();
const state = { done: 0, failed: 0, unreachable: 0 };

const pool = new PythonPool({
  script: path.join(__dirname, 'process_data.py'),
  size: 1,
  python: config.python,
  env: pythonEnv(),
  timeoutMs: config.pyTimeoutMs,
  queueMax: 1,
  log,
});

function call(route, body) {
  return fetch(base + route, {
    method: 'POST',
    headers: { Authorization: `Bearer ${config.secrets.workerToken}`, 'Content-Type': 'application/json' },
    body: JSON.stringify(body ?? {}),
    signal: AbortSignal.timeout(10_000),
  });
}

async function work() {
  const answer = await call('/internal/jobs/claim');
  if (answer.status === 204) return false;
  if (!answer.ok) throw new Error(`claim answered ${answer.status}`);
  const job = await answer.json();
  const outcome = await pool.run({ texts: job.texts }).catch((error) => ({ error: { code: error.code, message: error.message } }));
  const kept = await call(`/internal/jobs/${job.id}`, outcome);
  state[outcome.error ? 'failed' : 'done'] += 1;
  log.info('job finished', { job: job.id, texts: job.texts.length, ok: !outcome.error, stored: kept.ok });
  return true;
}

function pause(ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    stopping.signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

async function main() {
  log.info('worker started', { manager: base, engine: config.engine });
  const heartbeat = setInterval(() => log.info('heartbeat', { ...state }), HEARTBEAT_MS);
  pool.start();
  while (!stopping.signal.aborted) {
    let found = false;
    try {
      found = await work();
      state.unreachable = 0;
    } catch (error) {
      state.unreachable += 1;
      if (state.unreachable % 10 === 1) log.warn('manager not reachable', { manager: base, reason: error.cause?.code ?? error.message });
    }
    if (!found) await pause(Math.min(MAX_PAUSE_MS, POLL_MS * 2 ** Math.min(state.unreachable, 4)));
  }
  clearInterval(heartbeat);
  await pool.drain();
  log.info('worker stopped', { ...state });
}

for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stopping.abort());
main();
