'use strict';

const path = require('node:path');

function integer(env, name, fallback, { min = 0, max = Number.MAX_SAFE_INTEGER } = {}) {
  const raw = (env[name] ?? '').trim();
  if (raw === '') return fallback;
  const value = Number(raw);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new Error(`${name} must be a whole number from ${min} to ${max}`);
  }
  return value;
}

function text(env, name, fallback = '') {
  return (env[name] ?? '').trim() || fallback;
}

/** Every setting of the app, read once. Secrets are kept apart so that nothing prints them by accident. */
function load(env = process.env) {
  const secrets = {
    apiKey: text(env, 'HEADY_API_KEY'),
    workerToken: text(env, 'HEADY_WORKER_TOKEN'),
  };
  const has = (...names) => names.every((name) => text(env, name) !== '');
  const cpus = require('node:os').availableParallelism();
  return {
    host: text(env, 'HOST', '0.0.0.0'),
    port: integer(env, 'PORT', 3300, { max: 65535 }),
    nodeEnv: text(env, 'NODE_ENV', 'development'),
    logFormat: text(env, 'HEADY_LOG_FORMAT', 'text'),
    logLevel: text(env, 'HEADY_LOG_LEVEL', 'info'),
    corsOrigins: text(env, 'HEADY_CORS_ORIGINS').split(',').map((o) => o.trim()).filter(Boolean),
    rateLimitMax: integer(env, 'HEADY_RATE_LIMIT_MAX', 300),
    rateLimitWindowMs: integer(env, 'HEADY_RATE_LIMIT_WINDOW_MS', 60_000, { min: 1000 }),
    adminRoot: path.resolve(text(env, 'HEADY_ADMIN_ROOT', path.join(__dirname, '..'))),
    dataDir: text(env, 'HEADY_DATA_DIR', '/var/data'),
    historyDays: integer(env, 'HEADY_HISTORY_DAYS', 14, { min: 1 }),
    python: text(env, 'HEADY_PYTHON', 'python3'),
    pyMaxConcurrency: integer(env, 'HEADY_PY_MAX_CONCURRENCY', Math.min(2, cpus), { min: 1, max: 64 }),
    hfMaxConcurrency: integer(env, 'HF_MAX_CONCURRENCY', 4, { min: 1, max: 64 }),
    pyTimeoutMs: integer(env, 'HEADY_PY_TIMEOUT_MS', 30_000, { min: 100 }),
    pyQueueMax: integer(env, 'HEADY_PY_QUEUE_MAX', 100, { min: 1 }),
    shutdownGraceMs: integer(env, 'HEADY_SHUTDOWN_GRACE_MS', 25_000, { min: 100 }),
    maxClients: integer(env, 'HEADY_MAX_EVENT_CLIENTS', 500, { min: 1 }),
    engine: has('HF_TOKEN') ? 'huggingface' : 'local',
    integrations: {
      huggingface: has('HF_TOKEN'),
      remoteGpu: has('REMOTE_GPU_HOST', 'REMOTE_GPU_PORT'),
      githubApp: has('GITHUB_APP_ID', 'GITHUB_APP_PRIVATE_KEY'),
      database: has('DATABASE_URL'),
    },
    secrets,
  };
}

/** The environment for the Python workers: everything except what they have no business with. */
function pythonEnv(env = process.env) {
  const hidden = /^(HEADY_API_KEY|HEADY_WORKER_TOKEN|DATABASE_URL|GITHUB_APP_)/;
  const kept = Object.fromEntries(Object.entries(env).filter(([name]) => !hidden.test(name)));
  return { ...kept, PYTHONUNBUFFERED: '1', PYTHONIOENCODING: 'utf-8' };
}

module.exports = { load, pythonEnv };
