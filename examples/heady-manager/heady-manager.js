'use strict';

const { randomUUID } = require('node:crypto');
const http = require('node:http');
const path = require('node:path');
const cors = require('cors');
const express = require('express');
const { rateLimit } = require('express-rate-limit');

const { adminRouter } = require('./lib/admin');
const { requireSecret } = require('./lib/auth');
const { load, pythonEnv } = require('./lib/config');
const { EventHub } = require('./lib/events');
const { JobQueue } = require('./lib/jobs');
const { createLogger } = require('./lib/logger');
const { PythonPool } = require('./lib/python-pool');
const { Storage } = require('./lib/storage');
const { version } = require('./package.json');

const STATUS_OF = { bad_input: 400, busy: 503, closed: 503, timeout: 504, upstream: 502, crashed: 502 };

/** Everything the routes share. */
function createContext(config) {
  const log = createLogger({ format: config.logFormat, level: config.logLevel });
  const events = new EventHub({ maxClients: config.maxClients, log });
  const storage = new Storage(config.dataDir, log);
  const jobs = new JobQueue(storage);
  const pool = (script, size) => {
    const made = new PythonPool({
      script: path.join(__dirname, script),
      size,
      python: config.python,
      env: pythonEnv(),
      timeoutMs: config.pyTimeoutMs,
      queueMax: config.pyQueueMax,
      log,
    });
    made.on('restart', (detail) => events.publish('worker-restart', detail));
    made.on('ready', () => log.debug('worker ready', { script }));
    return made;
  };
  const pools = {
    infer: pool('process_data.py', config.engine === 'huggingface' ? config.hfMaxConcurrency : config.pyMaxConcurrency),
    audit: pool('audit.py', 1),
  };
  return { config, log, events, storage, jobs, pools, live: new Set(), startedAt: Date.now(), draining: false };
}

function statusOf(ctx) {
  const { config } = ctx;
  return {
    service: 'heady-manager',
    version,
    nodeEnv: config.nodeEnv,
    uptimeSeconds: Math.round((Date.now() - ctx.startedAt) / 1000),
    draining: ctx.draining,
    engine: config.engine,
    model: ctx.pools.infer.description?.model ?? null,
    workers: { infer: ctx.pools.infer.status(), audit: ctx.pools.audit.status() },
    clients: ctx.events.clients,
    disk: { persistent: ctx.storage.persistent },
    integrations: Object.fromEntries(Object.entries(config.integrations).map(([k, v]) => [k, v ? 'configured' : 'not configured'])),
    memoryMB: Math.round(process.memoryUsage.rss() / 1e6),
  };
}

function requestLog(ctx) {
  return (req, res, next) => {
    const given = req.get('x-request-id') ?? '';
    req.id = /^[\w.-]{1,64}$/.test(given) ? given : randomUUID();
    res.set({ 'X-Request-Id': req.id, 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer' });
    if (ctx.draining) res.set('Connection', 'close');
    const began = process.hrtime.bigint();
    const route = req.path;
    ctx.live.add(res);
    res.on('close', () => {
      ctx.live.delete(res);
      const ms = Number(process.hrtime.bigint() - began) / 1e6;
      const level = route === '/api/health' ? 'debug' : 'info';
      ctx.log[level]('request', {
        reqId: req.id, method: req.method, path: route, status: res.statusCode, ms: Math.round(ms * 10) / 10, aborted: !res.writableFinished,
      });
    });
    next();
  };
}

/** Exact origins, `*` for any, and `*` inside an origin for one run of characters (http://*.localhost:8080). */
function originAllowed(patterns) {
  const rules = patterns.map((p) => new RegExp(`^${p.split('*').map((s) => s.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('[^/]*')}$`));
  return (origin, done) => done(null, origin !== undefined && rules.some((rule) => rule.test(origin)));
}

function limiter(config) {
  if (config.rateLimitMax === 0) return (req, res, next) => next();
  return rateLimit({
    windowMs: config.rateLimitWindowMs,
    limit: config.rateLimitMax,
    standardHeaders: 'draft-6',
    legacyHeaders: false,
    message: { error: 'rate_limited', message: 'Too many requests: wait as long as Retry-After says.' },
  });
}

async function infer(ctx, payload, reqId) {
  const began = Date.now();
  const { results } = await ctx.pools.infer.run(payload);
  const labels = results.map((r) => r.label);
  const ms = Date.now() - began;
  ctx.storage.record({ kind: 'infer', reqId, labels, characters: JSON.stringify(payload).length, ms });
  ctx.events.publish('inference', { reqId, labels, ms });
  return { requestId: reqId, ms, results };
}

async function audit(ctx, payload, reqId) {
  const began = Date.now();
  const report = await ctx.pools.audit.run(payload);
  const ms = Date.now() - began;
  ctx.storage.record({ kind: 'audit', reqId, findings: report.findings.length, ok: report.ok, ms });
  ctx.events.publish('audit', { reqId, ok: report.ok, summary: report.summary, ms });
  return { requestId: reqId, ms, ...report };
}

function apiRoutes(app, ctx) {
  const { config, jobs } = ctx;
  app.get('/api/health', (req, res) => res.set('Cache-Control', 'no-store').json({ ok: true, service: 'heady-manager', version }));
  app.get('/api/status', (req, res) => res.set('Cache-Control', 'no-store').json(statusOf(ctx)));
  app.get('/api/events', (req, res) => ctx.events.stream(req, res));

  const body = express.json({ limit: '512kb' });
  const text = express.text({ limit: '512kb', type: ['text/*', 'application/yaml'] });
  app.post('/api/infer', body, text, async (req, res) => {
    const payload = typeof req.body === 'string' ? { text: req.body } : req.body ?? {};
    res.json(await infer(ctx, payload, req.id));
  });
  app.post('/api/audit', body, text, async (req, res) => {
    const payload = typeof req.body === 'string' ? { document: req.body, name: req.query.name } : req.body ?? {};
    res.json(await audit(ctx, payload, req.id));
  });

  app.post('/api/jobs', body, async (req, res) => {
    const { texts } = req.body ?? {};
    const fine = Array.isArray(texts) && texts.length > 0 && texts.length <= 64 && texts.every((t) => typeof t === 'string' && t.trim());
    if (!fine) return res.status(400).json({ error: 'bad_input', message: 'texts must be a list of 1 to 64 strings' });
    const job = await jobs.add(texts);
    if (!job) return res.set('Retry-After', '5').status(503).json({ error: 'busy', message: 'Too many jobs wait.' });
    return res.status(202).location(`/api/jobs/${job.id}`).json({ id: job.id, state: 'pending' });
  });
  app.get('/api/jobs/:id', async (req, res) => {
    const job = await jobs.get(req.params.id);
    return job ? res.json(job) : res.status(404).json({ error: 'not_found' });
  });

  const worker = requireSecret(config.secrets.workerToken, { realm: 'worker' });
  app.post('/internal/jobs/claim', worker, async (req, res) => {
    const job = await jobs.claim();
    return job ? res.json(job) : res.status(204).end();
  });
  app.post('/internal/jobs/:id', worker, body, async (req, res) => {
    const { results = null, error = null } = req.body ?? {};
    if (!(await jobs.finish(req.params.id, { results, error }))) return res.status(409).json({ error: 'not_running' });
    ctx.events.publish('job', { id: req.params.id, ok: error === null });
    return res.status(204).end();
  });
}

function createApp(ctx) {
  const { config } = ctx;
  const app = express();
  app.disable('x-powered-by');
  app.set('trust proxy', 'loopback, linklocal, uniquelocal');
  app.use(requestLog(ctx));
  app.use(cors({ origin: originAllowed(config.corsOrigins), exposedHeaders: ['X-Request-Id', 'Retry-After'], maxAge: 600 }));
  const limit = limiter(config);
  app.use((req, res, next) => {
    const counted = /^\/(api|admin)\b/.test(req.path) && req.path !== '/api/health';
    return counted ? limit(req, res, next) : next();
  });
  apiRoutes(app, ctx);
  app.use(['/admin', '/api/admin'], requireSecret(config.secrets.apiKey));
  app.use(adminRouter({ ...ctx, status: () => statusOf(ctx) }));
  app.use(express.static(path.join(__dirname, 'public'), { maxAge: '5m' }));
  app.use((req, res) => res.status(404).json({ error: 'not_found', requestId: req.id }));
  app.use((error, req, res, next) => {
    if (res.headersSent) return next(error);
    const status = STATUS_OF[error.code] ?? error.status ?? 500;
    if (status === 503) res.set('Retry-After', '1');
    if (status >= 500) ctx.log.error('request failed', { reqId: req.id, code: error.code, reason: error.message });
    const shown = status === 500 ? 'Something went wrong on our side.' : error.message;
    return res.status(status).json({ error: error.code ?? error.type ?? 'internal', message: shown, requestId: req.id });
  });
  return app;
}

function onUpgrade(ctx) {
  return (req, socket, head) => {
    const { pathname } = new URL(req.url, 'http://local');
    if (pathname !== '/ws' || ctx.events.full) {
      socket.end(`HTTP/1.1 ${pathname === '/ws' ? '503 Service Unavailable' : '404 Not Found'}\r\nConnection: close\r\n\r\n`);
      return;
    }
    ctx.events.upgrade(req, socket, head, async (message) => {
      if (message.type === 'ping') return { type: 'pong', at: new Date().toISOString() };
      if (message.type === 'infer') return { type: 'result', ...(await infer(ctx, { text: message.text }, randomUUID())) };
      return { type: 'error', error: 'unknown_type' };
    });
  };
}

/** Ends well: no new connections, requests in flight finish, listeners are told to come back. */
async function shutdown(ctx, server, signal) {
  if (ctx.draining) return;
  ctx.draining = true;
  const began = Date.now();
  ctx.log.info('shutting down', { signal });
  const deadline = setTimeout(() => {
    ctx.log.error('shutdown deadline passed, closing connections', { graceMs: ctx.config.shutdownGraceMs });
    server.closeAllConnections();
    Object.values(ctx.pools).forEach((pool) => pool.kill());
    process.exit(1);
  }, ctx.config.shutdownGraceMs);
  const closed = new Promise((resolve) => { server.close(resolve); });
  for (const res of ctx.live) if (!res.headersSent) res.set('Connection', 'close');
  ctx.events.close();
  server.closeIdleConnections();
  await closed;
  await Promise.all(Object.values(ctx.pools).map((pool) => pool.drain()));
  await ctx.storage.close();
  clearTimeout(deadline);
  ctx.log.info('stopped', { ms: Date.now() - began });
  process.exit(0);
}

function main() {
  const config = load();
  const ctx = createContext(config);
  const server = http.createServer(createApp(ctx));
  server.keepAliveTimeout = 75_000; // longer than a proxy keeps an idle connection, so the proxy closes first
  server.headersTimeout = 80_000;
  server.on('upgrade', onUpgrade(ctx));
  server.on('error', (error) => {
    ctx.log.error('cannot listen', { host: config.host, port: config.port, reason: error.code });
    process.exit(1);
  });
  server.listen(config.port, config.host, () => {
    const { address, port } = server.address();
    ctx.log.info('listening', { host: address, port, version, engine: config.engine, bootMs: Math.round(process.uptime() * 1000) });
    Object.values(ctx.pools).forEach((pool) => pool.start()); // workers warm up while we already answer
  });
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => shutdown(ctx, server, signal));
}

if (require.main === module) main();

module.exports = { createApp, createContext, originAllowed };
