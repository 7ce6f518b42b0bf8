'use strict';

const { WebSocketServer } = require('ws');

const KEPT = 100;
const HEARTBEAT_MS = 15_000;

/** Tells what happens to everybody who listens, over server-sent events or a WebSocket. */
class EventHub {
  constructor({ maxClients, log }) {
    this.maxClients = maxClients;
    this.log = log;
    this.streams = new Set();
    this.recent = [];
    this.nextId = Date.now(); // grows over restarts, so Last-Event-ID stays meaningful
    this.sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * 1024 });
    this.heartbeat = setInterval(() => this.beat(), HEARTBEAT_MS);
    this.heartbeat.unref();
    this.closing = false;
  }

  get clients() {
    return { sse: this.streams.size, ws: this.sockets.clients.size };
  }

  get full() {
    return this.closing || this.streams.size + this.sockets.clients.size >= this.maxClients;
  }

  publish(type, data) {
    const event = { id: (this.nextId += 1), type, at: new Date().toISOString(), ...data };
    this.recent.push(event);
    if (this.recent.length > KEPT) this.recent.shift();
    for (const res of this.streams) this.write(res, event);
    const frame = JSON.stringify(event);
    for (const socket of this.sockets.clients) if (socket.readyState === socket.OPEN) socket.send(frame);
  }

  write(res, event) {
    if (res.writableLength > 256 * 1024) {
      res.destroy(); // a reader that does not read
      return;
    }
    res.write(`id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  }

  /** Express handler of GET /api/events. */
  stream(req, res) {
    if (this.full) {
      res.set('Retry-After', '5').status(503).json({ error: 'too_many_clients' });
      return;
    }
    res.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache, no-transform', 'X-Accel-Buffering': 'no' });
    res.flushHeaders();
    res.write('retry: 1000\n\n');
    const last = Number(req.get('last-event-id'));
    if (Number.isFinite(last) && last > 0) for (const event of this.recent) if (event.id > last) this.write(res, event);
    res.write(`event: hello\ndata: ${JSON.stringify({ at: new Date().toISOString() })}\n\n`);
    this.streams.add(res);
    res.on('close', () => this.streams.delete(res));
  }

  /** Takes over an upgrade of /ws; `onMessage` answers what a client sends. */
  upgrade(req, socket, head, onMessage) {
    this.sockets.handleUpgrade(req, socket, head, (client) => {
      client.alive = true;
      client.on('pong', () => { client.alive = true; });
      client.on('error', () => {});
      client.on('message', async (raw) => {
        let answer;
        try {
          answer = await onMessage(JSON.parse(raw.toString()));
        } catch (error) {
          answer = { type: 'error', error: error.code || 'bad_message', message: error.message };
        }
        if (client.readyState === client.OPEN) client.send(JSON.stringify(answer));
      });
      client.send(JSON.stringify({ type: 'hello', at: new Date().toISOString() }));
    });
  }

  beat() {
    for (const res of this.streams) res.write(': beat\n\n');
    for (const client of this.sockets.clients) {
      if (!client.alive) client.terminate();
      client.alive = false;
      client.ping();
    }
  }

  /** Tells every listener to come back: it will find the next instance. */
  close() {
    this.closing = true;
    clearInterval(this.heartbeat);
    for (const res of this.streams) res.end('event: restart\ndata: {"reconnect":true}\n\n');
    for (const client of this.sockets.clients) client.close(1001, 'going away');
    setTimeout(() => this.sockets.clients.forEach((client) => client.terminate()), 2000).unref(); // those that never answer
  }
}

module.exports = { EventHub };
