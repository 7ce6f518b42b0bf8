'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { once } = require('node:events');
const test = require('node:test');
const WebSocket = require('ws');

const { startServer, post, fakeUpstream } = require('./support/index.js');

test('health answers before the workers are warm', async (t) => {
  const { url, logs } = await startServer(t);
  const answer = await fetch(`${url}/api/health`);
  assert.equal(answer.status, 200);
  assert.equal((await answer.json()).ok, true);
  assert.match(answer.headers.get('x-request-id'), /^[\w-]+$/);
  assert.ok(logs.find((l) => l.msg === 'listening').bootMs < 2000);
});

test('infers a label, records it on the disk and tells the listeners', async (t) => {
  const { url, dataDir } = await startServer(t);
  const answer = await post(`${url}/api/infer`, { text: 'Production is down, every request times out' }, { 'X-Request-Id': 'abc-1' });
  const body = await answer.json();
  assert.equal(answer.status, 200);
  assert.equal(body.requestId, 'abc-1');
  assert.equal(body.results[0].label, 'outage');
  assert.equal(body.results[0].engine, 'local');
  await fetch(`${url}/api/admin/maintenance`, { method: 'POST', headers: { 'X-Heady-Api-Key': 'key-for-tests' } });
  const [file] = fs.readdirSync(path.join(dataDir, 'history'));
  const line = JSON.parse(fs.readFileSync(path.join(dataDir, 'history', file), 'utf8').trim());
  assert.deepEqual(line.labels, ['outage']);
  assert.equal(JSON.stringify(line).includes('Production'), false);
});

test('bad input is the caller\'s fault', async (t) => {
  const { url } = await startServer(t);
  for (const body of [{}, { text: '' }, { text: 5 }, { texts: [] }, []]) {
    assert.equal((await post(`${url}/api/infer`, body)).status, 400, JSON.stringify(body));
  }
  const broken = await fetch(`${url}/api/infer`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{' });
  assert.equal(broken.status, 400);
});

test('an audit names lines and masks what it found', async (t) => {
  const { url } = await startServer(t);
  const secret = ['hunter', '2', 'hunter'].join('');
  const answer = await post(`${url}/api/audit`, { document: `fine\nurl = postgres://app:${secret}@db/app\n` });
  const text = await answer.text();
  const [finding] = JSON.parse(text).findings;
  assert.equal(finding.rule, 'url-password');
  assert.equal(finding.line, 2);
  assert.equal(text.includes(secret), false);
});

test('the admin pages need the key', async (t) => {
  const { url } = await startServer(t);
  assert.equal((await fetch(`${url}/admin`)).status, 401);
  assert.equal((await fetch(`${url}/admin`, { headers: { 'X-Heady-Api-Key': 'wrong' } })).status, 401);
  const basic = `Basic ${Buffer.from('me:key-for-tests').toString('base64')}`;
  assert.equal((await fetch(`${url}/admin`, { headers: { Authorization: basic } })).status, 200);
  const outside = await fetch(`${url}/api/admin/file?path=../../../etc/passwd`, { headers: { Authorization: basic } });
  assert.equal(outside.status, 404);
});

test('without a configured key the admin pages stay closed', async (t) => {
  const { url } = await startServer(t, { HEADY_API_KEY: '' });
  assert.equal((await fetch(`${url}/admin`, { headers: { 'X-Heady-Api-Key': '' } })).status, 503);
});

test('too many requests are told how long to wait, health checks are not counted', async (t) => {
  const { url } = await startServer(t, { HEADY_RATE_LIMIT_MAX: '3' });
  const codes = [];
  for (let i = 0; i < 5; i += 1) codes.push((await fetch(`${url}/api/status`)).status);
  assert.deepEqual(codes, [200, 200, 200, 429, 429]);
  const refused = await fetch(`${url}/api/status`);
  assert.ok(Number(refused.headers.get('retry-after')) > 0);
  assert.equal((await fetch(`${url}/api/health`)).status, 200);
});

test('only listed origins may read answers', async (t) => {
  const { url } = await startServer(t, { HEADY_CORS_ORIGINS: 'https://a.example,http://status.*.localhost:*' });
  const allowed = async (origin) => (await fetch(`${url}/api/health`, { headers: { Origin: origin } })).headers.get('access-control-allow-origin');
  assert.equal(await allowed('https://a.example'), 'https://a.example');
  assert.equal(await allowed('http://status.heady.localhost:8080'), 'http://status.heady.localhost:8080');
  assert.equal(await allowed('https://a.example.evil.example'), null);
});

test('with HF_TOKEN the Hugging Face API answers', async (t) => {
  const upstream = await fakeUpstream(t, (body) => ({ labels: body.parameters.candidate_labels, scores: [0.9, 0.02, 0.02, 0.02, 0.02, 0.02] }));
  const { url } = await startServer(t, { HF_TOKEN: 'hf-for-tests', HF_API_URL: upstream.url });
  const body = await (await post(`${url}/api/infer`, { text: 'hello' })).json();
  assert.equal(body.results[0].engine, 'huggingface');
  assert.equal(body.results[0].label, 'billing');
  assert.equal(upstream.seen[0].headers.authorization, 'Bearer hf-for-tests');
});

test('SIGTERM to the whole group: the request in flight finishes, listeners are told, the process ends with 0', async (t) => {
  let release;
  const upstream = await fakeUpstream(t, () => [{ label: 'praise', score: 1 }], new Promise((resolve) => { release = resolve; }));
  const { url, child, exited, port } = await startServer(t, { HF_TOKEN: 'hf-for-tests', HF_API_URL: upstream.url });
  const stream = await fetch(`${url}/api/events`);
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`);
  await once(socket, 'message');
  const closed = once(socket, 'close');
  const asked = once(upstream.server, 'asked');
  const pending = post(`${url}/api/infer`, { text: 'thank you' });
  await asked;
  process.kill(-child.pid, 'SIGTERM');
  const [code] = await closed;
  assert.equal(code, 1001);
  assert.match(await stream.text(), /event: restart/);
  await assert.rejects(fetch(`${url}/api/health`));
  release();
  const answer = await pending;
  assert.equal(answer.status, 200);
  assert.equal((await answer.json()).results[0].label, 'praise');
  assert.deepEqual(await exited, { code: 0, signal: null });
});

test('a batch goes through the queue once', async (t) => {
  const { url } = await startServer(t);
  const auth = { Authorization: 'Bearer token-for-tests' };
  const { id } = await (await post(`${url}/api/jobs`, { texts: ['thanks'] })).json();
  assert.equal((await post(`${url}/internal/jobs/claim`, {})).status, 401);
  const claims = await Promise.all([1, 2].map(() => post(`${url}/internal/jobs/claim`, {}, auth)));
  assert.deepEqual(claims.map((c) => c.status).sort(), [200, 204]);
  assert.equal((await post(`${url}/internal/jobs/${id}`, { results: [{ label: 'praise' }] }, auth)).status, 204);
  assert.equal((await post(`${url}/internal/jobs/${id}`, { results: [] }, auth)).status, 409);
  assert.equal((await (await fetch(`${url}/api/jobs/${id}`)).json()).state, 'done');
});

test('a missing disk is no reason not to start', async (t) => {
  const { url } = await startServer(t, { HEADY_DATA_DIR: '/does/not/exist' });
  assert.equal((await (await fetch(`${url}/api/status`)).json()).disk.persistent, false);
  assert.equal((await post(`${url}/api/infer`, { text: 'hello there' })).status, 200);
});
