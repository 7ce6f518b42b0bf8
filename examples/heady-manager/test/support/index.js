'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { once } = require('node:events');

const ROOT = path.join(__dirname, '..', '..');

/** Starts the real server on a free port; resolves once it listens. */
async function startServer(t, env = {}) {
  const dataDir = fs.mkdtempSync(path.join(os.tmpdir(), 'heady-test-'));
  const child = spawn(process.execPath, ['heady-manager.js'], {
    cwd: ROOT,
    detached: true, // a process group of its own, as under a process manager
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      PATH: process.env.PATH, HOME: process.env.HOME, HOST: '127.0.0.1', PORT: '0', HEADY_LOG_FORMAT: 'json', HEADY_LOG_LEVEL: 'debug',
      HEADY_DATA_DIR: dataDir, HEADY_API_KEY: 'key-for-tests', HEADY_WORKER_TOKEN: 'token-for-tests', HEADY_PY_MAX_CONCURRENCY: '1', ...env,
    },
  });
  const logs = [];
  const exited = once(child, 'exit').then(([code, signal]) => ({ code, signal }));
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid, 'SIGKILL');
    await exited;
    fs.rmSync(dataDir, { recursive: true, force: true });
  });
  const listening = new Promise((resolve, reject) => {
    exited.then(() => reject(new Error(`ended early:\n${logs.map((l) => JSON.stringify(l)).join('\n')}`)));
    require('node:readline').createInterface({ input: child.stdout }).on('line', (line) => {
      const entry = JSON.parse(line);
      logs.push(entry);
      if (entry.msg === 'listening') resolve(entry.port);
    });
  });
  listening.catch(() => {});
  const port = await listening;
  return { child, port, logs, exited, dataDir, url: `http://127.0.0.1:${port}` };
}

const post = (url, body, headers = {}) => fetch(url, {
  method: 'POST', headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body),
});

/** A server that answers each request with `answer(body)` after `release` resolves. */
async function fakeUpstream(t, answer, release = Promise.resolve()) {
  const seen = [];
  const server = http.createServer(async (req, res) => {
    let body = '';
    for await (const chunk of req) body += chunk;
    seen.push({ url: req.url, headers: req.headers, body: JSON.parse(body) });
    server.emit('asked');
    await release;
    res.setHeader('Content-Type', 'application/json');
    res.end(JSON.stringify(answer(JSON.parse(body))));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { seen, server, url: `http://127.0.0.1:${server.address().port}` };
}

module.exports = { ROOT, startServer, post, fakeUpstream };
