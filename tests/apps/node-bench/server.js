'use strict';

// The smallest web service that has everything a switch of releases can break.

const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');

const VERSION = 'v1';

const streams = new Set();
const sockets = new Set();
let draining = false;

function send(res, status, body, type = 'text/plain') {
  if (draining) res.setHeader('Connection', 'close');
  res.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
  res.end(body);
}

const json = (res, status, value) => send(res, status, JSON.stringify(value), 'application/json');

function sse(req, res) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no' });
  res.write(`retry: 100\nevent: version\ndata: ${VERSION}\n\n`);
  const timer = setInterval(() => res.write('data: tick\n\n'), 200);
  streams.add(res);
  res.on('close', () => { clearInterval(timer); streams.delete(res); });
}

// POST /once?id=ID appends ID to the file named by ONCE_FILE: a request that ran twice shows as two lines.
function once(req, res, url) {
  const id = url.searchParams.get('id') ?? '';
  if (!/^[\w.-]{1,100}$/.test(id)) return json(res, 400, { error: 'id' });
  if (process.env.ONCE_FILE) fs.appendFileSync(process.env.ONCE_FILE, `${id}\n`);
  return json(res, 200, { id, version: VERSION });
}

function body(req, res) {
  const hash = crypto.createHash('sha256');
  let size = 0;
  req.on('data', (chunk) => { hash.update(chunk); size += chunk.length; });
  req.on('end', () => json(res, 200, { size, sha256: hash.digest('hex') }));
}

function handle(req, res) {
  const url = new URL(req.url, 'http://local');
  switch (url.pathname) {
    case '/': return send(res, 200, `hello from ${VERSION}\n`);
    case '/health': return json(res, 200, { ok: true, version: VERSION });
    case '/version': return send(res, 200, `${VERSION}\n`);
    case '/slow': return void setTimeout(() => send(res, 200, `slow ${VERSION}\n`), Number(url.searchParams.get('ms') ?? 5000));
    case '/sse': return sse(req, res);
    case '/once': return req.method === 'POST' ? once(req, res, url) : json(res, 405, { error: 'method' });
    case '/body': return body(req, res);
    case '/headers': return json(res, 200, req.headers);
    case '/env': return json(res, 200, Object.keys(process.env).sort());
    default: return json(res, 404, { error: 'not found' });
  }
}

// --- WebSocket (RFC 6455), just enough to echo messages of up to 64 KB.

function frame(opcode, payload) {
  const head = payload.length < 126 ? [0x80 | opcode, payload.length] : [0x80 | opcode, 126, payload.length >> 8, payload.length & 255];
  return Buffer.concat([Buffer.from(head), payload]);
}

function closeFrame(code) {
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(code);
  return frame(8, payload);
}

function parse(buffer) {
  if (buffer.length < 2) return null;
  let length = buffer[1] & 127;
  let at = 2;
  if (length === 126) {
    if (buffer.length < 4) return null;
    length = buffer.readUInt16BE(2);
    at = 4;
  }
  if (!(buffer[1] & 128) || length === 127) return { bad: true };
  if (buffer.length < at + 4 + length) return null;
  const mask = buffer.subarray(at, at + 4);
  const payload = Buffer.from(buffer.subarray(at + 4, at + 4 + length)).map((byte, i) => byte ^ mask[i % 4]);
  return { opcode: buffer[0] & 15, payload, rest: buffer.subarray(at + 4 + length) };
}

function upgrade(req, socket) {
  const key = req.headers['sec-websocket-key'];
  if (new URL(req.url, 'http://local').pathname !== '/ws' || !key || draining) {
    socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    return;
  }
  const accept = crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  sockets.add(socket);
  socket.on('error', () => {});
  socket.on('close', () => sockets.delete(socket));
  let buffer = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    buffer = Buffer.concat([buffer, chunk]);
    for (let message = parse(buffer); message; message = parse(buffer)) {
      if (message.bad) return void socket.end(closeFrame(1002));
      buffer = message.rest;
      if (message.opcode === 8) return void socket.end(frame(8, message.payload.subarray(0, 2)));
      if (message.opcode === 9) socket.write(frame(10, message.payload));
      if (message.opcode === 1 || message.opcode === 2) socket.write(frame(message.opcode, message.payload));
    }
    return undefined;
  });
}

const server = http.createServer(handle);
server.keepAliveTimeout = 75_000;
server.on('upgrade', upgrade);
server.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? '0.0.0.0', () => console.log(`listening ${VERSION} on ${server.address().port}`));

process.on('SIGTERM', () => {
  draining = true;
  server.close(() => process.exit(0));
  for (const res of streams) res.end('event: restart\ndata: bye\n\n');
  for (const socket of sockets) {
    socket.write(closeFrame(1001));
    setTimeout(() => socket.destroy(), 1000).unref();
  }
  // Connections whose last answer is being written become idle after it.
  setInterval(() => server.closeIdleConnections(), 50).unref();
});
