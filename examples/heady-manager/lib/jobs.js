'use strict';

const { randomUUID } = require('node:crypto');
const fsp = require('node:fs/promises');
const path = require('node:path');

const { writeAtomic } = require('./storage');

const ID = /^[0-9a-f-]{36}$/;

/**
 * Batches for the worker service. A job is one file; its folder is its state. Claiming is a
 * rename, so two web instances on the same disk never hand out the same job twice.
 */
class JobQueue {
  constructor(storage, { maxPending = 1000, leaseMs = 60_000 } = {}) {
    this.storage = storage;
    this.maxPending = maxPending;
    this.leaseMs = leaseMs;
  }

  file(state, id) {
    return path.join(this.storage.root, 'jobs', state, `${id}.json`);
  }

  list(state) {
    return fsp.readdir(path.join(this.storage.root, 'jobs', state)).then((names) => names.filter((n) => n.endsWith('.json')));
  }

  async add(texts) {
    if ((await this.list('pending')).length >= this.maxPending) return null;
    const job = { id: randomUUID(), createdAt: new Date().toISOString(), texts };
    await writeAtomic(this.file('pending', job.id), job);
    return job;
  }

  /** The oldest waiting job, or null. Jobs whose worker vanished come back first. */
  async claim() {
    await this.releaseExpired();
    const waiting = await Promise.all((await this.list('pending')).map(async (name) => {
      const file = path.join(this.storage.root, 'jobs', 'pending', name);
      return { name, since: (await fsp.stat(file).catch(() => null))?.mtimeMs ?? Infinity };
    }));
    for (const { name } of waiting.sort((a, b) => a.since - b.since)) {
      const id = path.basename(name, '.json');
      try {
        await fsp.rename(this.file('pending', id), this.file('running', id));
      } catch (error) {
        if (error.code === 'ENOENT') continue; // somebody else was faster
        throw error;
      }
      const now = new Date();
      await fsp.utimes(this.file('running', id), now, now);
      return JSON.parse(await fsp.readFile(this.file('running', id), 'utf8'));
    }
    return null;
  }

  async releaseExpired() {
    for (const name of await this.list('running')) {
      const id = path.basename(name, '.json');
      const stat = await fsp.stat(this.file('running', id)).catch(() => null);
      if (stat && Date.now() - stat.mtimeMs > this.leaseMs) {
        await fsp.rename(this.file('running', id), this.file('pending', id)).catch(() => {});
      }
    }
  }

  /** Stores the outcome; false when the job is not running (finished twice, or unknown). */
  async finish(id, outcome) {
    if (!ID.test(id)) return false;
    let job;
    try {
      job = JSON.parse(await fsp.readFile(this.file('running', id), 'utf8'));
    } catch {
      return false;
    }
    await writeAtomic(this.file('done', id), { ...job, ...outcome, finishedAt: new Date().toISOString() });
    await fsp.rm(this.file('running', id), { force: true });
    return true;
  }

  async get(id) {
    if (!ID.test(id)) return null;
    for (const state of ['done', 'running', 'pending', 'done']) {
      try {
        return { state, ...JSON.parse(await fsp.readFile(this.file(state, id), 'utf8')) };
      } catch (error) {
        if (error.code !== 'ENOENT') throw error;
      }
    }
    return null;
  }

  async counts() {
    const [pending, running, done] = await Promise.all(['pending', 'running', 'done'].map((s) => this.list(s)));
    return { pending: pending.length, running: running.length, done: done.length };
  }
}

module.exports = { JobQueue };
