'use strict';

const express = require('express');
const fsp = require('node:fs/promises');
const path = require('node:path');

const MAX_FILE = 256 * 1024;
const HIDDEN = /(^|\/)(\.env[^/]*|\.git|node_modules|.*\.pem|.*\.key)(\/|$)/;

/** The path below `root`, or null when it (or what a link points to) lies outside, or holds secrets. */
async function inside(root, wanted) {
  try {
    const base = await fsp.realpath(root);
    const real = await fsp.realpath(path.resolve(base, `.${path.sep}${wanted}`));
    const relative = path.relative(base, real);
    return relative.startsWith('..') || path.isAbsolute(relative) || HIDDEN.test(relative) ? null : real;
  } catch {
    return null;
  }
}

/** The pages and endpoints behind HEADY_API_KEY. */
function adminRouter({ config, storage, jobs, status }) {
  const router = express.Router();
  router.get('/admin', (req, res) => res.sendFile('admin.html', { root: path.join(__dirname, '..', 'public-admin') }));
  router.get('/api/admin/overview', async (req, res) => {
    res.json({ ...status(), jobs: await jobs.counts(), report: await storage.lastReport(), recent: storage.recent.slice(-50).reverse() });
  });
  router.get('/api/admin/files', async (req, res) => {
    const folder = await inside(config.adminRoot, String(req.query.path ?? '.'));
    const entries = folder && (await fsp.readdir(folder, { withFileTypes: true }).catch(() => null));
    if (!entries) return res.status(404).json({ error: 'not_found' });
    const shown = entries.filter((e) => !HIDDEN.test(e.name)).slice(0, 1000);
    return res.json({ entries: shown.map((e) => ({ name: e.name, kind: e.isDirectory() ? 'folder' : 'file' })) });
  });
  router.get('/api/admin/file', async (req, res) => {
    const file = await inside(config.adminRoot, String(req.query.path ?? ''));
    const stat = file && (await fsp.stat(file).catch(() => null));
    if (!stat?.isFile()) return res.status(404).json({ error: 'not_found' });
    if (stat.size > MAX_FILE) return res.status(413).json({ error: 'too_large' });
    return res.type('text/plain').send(await fsp.readFile(file));
  });
  router.post('/api/admin/maintenance', async (req, res) => res.json(await storage.maintain(config.historyDays)));
  return router;
}

module.exports = { adminRouter };
