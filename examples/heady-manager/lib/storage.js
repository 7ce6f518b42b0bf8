'use strict';

const fs = require('node:fs');
const fsp = require('node:fs/promises');
const os = require('node:os');
const path = require('node:path');

const DAY = /^requests-(\d{4}-\d{2}-\d{2})\.jsonl$/;

/**
 * What the app keeps: request history, nightly reports and the job queue, as files on the
 * persistent disk. Without the disk everything works in a temporary folder.
 */
class Storage {
  constructor(dataDir, log) {
    this.log = log;
    this.persistent = usable(dataDir);
    this.root = this.persistent ? dataDir : fs.mkdtempSync(path.join(os.tmpdir(), 'heady-'));
    if (!this.persistent) log.warn('no persistent disk, using a temporary folder', { wanted: dataDir, root: this.root });
    for (const name of ['history', 'reports', 'jobs/pending', 'jobs/running', 'jobs/done']) {
      fs.mkdirSync(path.join(this.root, name), { recursive: true });
    }
    this.recent = [];
    this.appending = Promise.resolve();
  }

  /** Appends one line to today's history; never fails the request it describes. */
  record(entry) {
    const line = { at: new Date().toISOString(), ...entry };
    this.recent.push(line);
    if (this.recent.length > 200) this.recent.shift();
    const file = path.join(this.root, 'history', `requests-${line.at.slice(0, 10)}.jsonl`);
    this.appending = this.appending
      .then(() => fsp.appendFile(file, `${JSON.stringify(line)}\n`))
      .catch((error) => this.log.error('history not written', { reason: error.code }));
  }

  /** Removes history older than `days` and writes a report on what is left. */
  async maintain(days, now = new Date()) {
    await this.appending;
    const oldest = new Date(now.getTime() - days * 86_400_000).toISOString().slice(0, 10);
    const report = { at: now.toISOString(), removedFiles: 0, removedJobs: 0, requests: 0, byKind: {}, byLabel: {}, p50Ms: null, p95Ms: null };
    const times = [];
    for (const name of (await fsp.readdir(path.join(this.root, 'history'))).sort()) {
      const day = DAY.exec(name)?.[1];
      if (!day) continue;
      const file = path.join(this.root, 'history', name);
      if (day < oldest) {
        await fsp.rm(file, { force: true });
        report.removedFiles += 1;
        continue;
      }
      for (const line of (await fsp.readFile(file, 'utf8')).split('\n')) count(line, report, times);
    }
    times.sort((a, b) => a - b);
    report.p50Ms = times.length ? times[Math.floor(times.length * 0.5)] : null;
    report.p95Ms = times.length ? times[Math.floor(times.length * 0.95)] : null;
    report.removedJobs = await this.pruneJobs(now.getTime() - days * 86_400_000);
    await writeAtomic(path.join(this.root, 'reports', `${report.at.slice(0, 10)}.json`), report);
    return report;
  }

  async pruneJobs(before) {
    let removed = 0;
    const folder = path.join(this.root, 'jobs', 'done');
    for (const name of await fsp.readdir(folder)) {
      const file = path.join(folder, name);
      if ((await fsp.stat(file)).mtimeMs >= before) continue;
      await fsp.rm(file, { force: true });
      removed += 1;
    }
    return removed;
  }

  async lastReport() {
    const names = (await fsp.readdir(path.join(this.root, 'reports'))).filter((n) => n.endsWith('.json')).sort();
    return names.length ? JSON.parse(await fsp.readFile(path.join(this.root, 'reports', names.at(-1)), 'utf8')) : null;
  }

  async close() {
    await this.appending;
    if (!this.persistent) await fsp.rm(this.root, { recursive: true, force: true });
  }
}

function usable(folder) {
  try {
    fs.accessSync(folder, fs.constants.W_OK | fs.constants.X_OK);
    return fs.statSync(folder).isDirectory();
  } catch {
    return false;
  }
}

function count(line, report, times) {
  if (!line) return;
  let entry;
  try {
    entry = JSON.parse(line);
  } catch {
    return; // a line cut off by a crash
  }
  report.requests += 1;
  report.byKind[entry.kind] = (report.byKind[entry.kind] ?? 0) + 1;
  for (const label of entry.labels ?? []) report.byLabel[label] = (report.byLabel[label] ?? 0) + 1;
  if (Number.isFinite(entry.ms)) times.push(entry.ms);
}

async function writeAtomic(file, value) {
  const temporary = `${file}.${process.pid}.tmp`;
  const handle = await fsp.open(temporary, 'w');
  try {
    await handle.writeFile(JSON.stringify(value));
    await handle.sync();
  } finally {
    await handle.close();
  }
  await fsp.rename(temporary, file);
}

module.exports = { Storage, writeAtomic };
