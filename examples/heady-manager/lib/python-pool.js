'use strict';

const { spawn } = require('node:child_process');
const { EventEmitter } = require('node:events');
const path = require('node:path');
const readline = require('node:readline');

class PoolError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Keeps `size` Python processes that speak one JSON object per line. Each has at most one
 * request in hand; the others wait in a bounded queue. A worker that crashes or overruns its
 * time is replaced, after a pause that grows while it keeps crashing.
 *
 * Events: 'ready' (worker description), 'restart' ({ script, reason, delayMs }).
 */
class PythonPool extends EventEmitter {
  constructor({ script, size, python = 'python3', env, timeoutMs, queueMax, log }) {
    super();
    Object.assign(this, { script, size, python, env, timeoutMs, queueMax, log });
    this.workers = new Set();
    this.queue = [];
    this.timers = new Set();
    this.crashes = 0;
    this.restarts = 0;
    this.done = 0;
    this.lastId = 0;
    this.description = null;
    this.closed = false; // takes no more work
    this.stopped = false; // brings no more workers
  }

  start() {
    for (let i = 0; i < this.size; i += 1) this.spawnWorker();
  }

  get busy() {
    return [...this.workers].filter((w) => w.task).length;
  }

  status() {
    const ready = [...this.workers].filter((w) => w.ready).length;
    return { size: this.size, ready, busy: this.busy, queued: this.queue.length, done: this.done, restarts: this.restarts };
  }

  /** Resolves to the worker's result; rejects with a PoolError: busy, timeout, crashed, closed, or the worker's own code. */
  run(payload) {
    if (this.closed) return Promise.reject(new PoolError('closed', 'The server is shutting down.'));
    if (this.queue.length >= this.queueMax) {
      return Promise.reject(new PoolError('busy', 'All workers are busy and the queue is full.'));
    }
    return new Promise((resolve, reject) => {
      const task = { id: (this.lastId += 1), payload, resolve, reject };
      task.timer = setTimeout(() => this.expire(task), this.timeoutMs);
      this.queue.push(task);
      this.dispatch();
    });
  }

  /** Stops taking work, lets what is waiting and in hand end (the caller sets the deadline), then ends the workers. */
  async drain() {
    this.closed = true;
    while (this.queue.length > 0 || this.busy > 0) {
      await new Promise((resolve) => { this.once('settled', resolve); });
    }
    this.stop();
    const late = setTimeout(() => this.kill(), 1000);
    while (this.workers.size > 0) {
      await new Promise((resolve) => { this.once('gone', resolve); });
    }
    clearTimeout(late);
  }

  /** Workers end by themselves when their stdin closes. */
  stop() {
    this.closed = true;
    this.stopped = true;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    for (const worker of this.workers) worker.child.stdin.end();
  }

  kill() {
    this.stop();
    for (const task of this.queue.splice(0)) this.settle(task, new PoolError('closed', 'The server is shutting down.'));
    for (const worker of this.workers) worker.child.kill('SIGKILL');
  }

  spawnWorker() {
    const child = spawn(this.python, [this.script], {
      cwd: path.dirname(this.script),
      env: this.env,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const worker = { child, ready: false, task: null, startedAt: Date.now() };
    this.workers.add(worker);
    readline.createInterface({ input: child.stdout }).on('line', (line) => this.onLine(worker, line));
    readline.createInterface({ input: child.stderr }).on('line', (line) => {
      this.log.warn('python', { script: path.basename(this.script), pid: child.pid, line: line.slice(0, 500) });
    });
    child.stdin.on('error', () => {}); // the exit handler tells
    child.on('error', (error) => this.onExit(worker, error.message));
    child.on('exit', (code, signal) => this.onExit(worker, signal || `exit ${code}`));
  }

  onLine(worker, line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      return;
    }
    if (message.ready) {
      worker.ready = true;
      this.description = message;
      this.emit('ready', message);
      this.dispatch();
      return;
    }
    const { task } = worker;
    if (!task || message.id !== task.id) return;
    worker.task = null;
    this.crashes = 0;
    this.done += 1;
    this.settle(task, message.error ? new PoolError(message.error.code, message.error.message) : null, message.result);
    this.dispatch();
  }

  onExit(worker, reason) {
    if (!this.workers.delete(worker)) return;
    const { task } = worker;
    worker.task = null;
    if (task) this.settle(task, new PoolError('crashed', 'The worker stopped while it had this request in hand.'));
    this.emit('gone');
    if (this.stopped) return;
    this.crashes += 1;
    this.restarts += 1;
    const delayMs = Math.min(5000, 50 * 2 ** Math.min(this.crashes, 7));
    this.log.warn('worker stopped', { script: path.basename(this.script), reason, delayMs });
    this.emit('restart', { script: path.basename(this.script), reason, delayMs });
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      this.spawnWorker();
    }, delayMs);
    this.timers.add(timer);
  }

  dispatch() {
    for (const worker of this.workers) {
      if (this.queue.length === 0) return;
      if (!worker.ready || worker.task) continue;
      worker.task = this.queue.shift();
      worker.child.stdin.write(`${JSON.stringify({ id: worker.task.id, payload: worker.task.payload })}\n`);
    }
  }

  expire(task) {
    const waiting = this.queue.indexOf(task);
    if (waiting >= 0) this.queue.splice(waiting, 1);
    const worker = [...this.workers].find((w) => w.task === task);
    if (worker) {
      worker.task = null;
      worker.ready = false;
      worker.child.kill('SIGKILL'); // it may never answer; the exit handler brings a new one
    }
    this.settle(task, new PoolError('timeout', `No answer within ${this.timeoutMs} ms.`));
  }

  settle(task, error, result) {
    clearTimeout(task.timer);
    if (error) task.reject(error);
    else task.resolve(result);
    this.emit('settled');
  }
}

module.exports = { PythonPool, PoolError };
