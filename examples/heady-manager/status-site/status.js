'use strict';

// The API is the sister service: heady-status.<domain> -> heady-manager.<domain>; ?api=URL overrides.
function apiBase() {
  const asked = new URLSearchParams(location.search).get('api');
  if (asked) return asked.replace(/\/$/, '');
  return `${location.protocol}//${location.host.replace(/^heady-status/, 'heady-manager')}`;
}

const base = apiBase();
const byId = (id) => document.getElementById(id);
byId('api').textContent = base;

function row(name, value) {
  const tr = document.createElement('tr');
  for (const [tag, text] of [['th', name], ['td', value]]) {
    tr.append(Object.assign(document.createElement(tag), { textContent: text }));
  }
  return tr;
}

function verdict(state, text) {
  byId('verdict').className = state;
  byId('verdict').textContent = text;
  const bar = Object.assign(document.createElement('span'), { className: `bar ${state}`, title: `${new Date().toISOString()} ${text}` });
  byId('bars').append(bar);
  while (byId('bars').children.length > 60) byId('bars').firstChild.remove();
}

async function check() {
  const began = performance.now();
  try {
    const options = { signal: AbortSignal.timeout(8000), cache: 'no-store' };
    const health = await fetch(`${base}/api/health`, options).then((r) => r.json());
    const ms = Math.round(performance.now() - began);
    const status = await fetch(`${base}/api/status`, options).then((r) => r.json());
    verdict(health.ok ? 'up' : 'down', health.ok ? `All systems work (${ms} ms)` : 'The manager reports a problem');
    byId('facts').replaceChildren(
      row('Version', health.version),
      row('Engine', status.engine ?? '?'),
      row('Workers ready', `${status.workers?.infer.ready ?? '?'} of ${status.workers?.infer.size ?? '?'}`),
      row('Waiting requests', status.workers?.infer.queued ?? '?'),
      row('Up since', `${status.uptimeSeconds ?? '?'} s`),
    );
  } catch {
    verdict('down', 'The manager does not answer');
  }
}

check();
setInterval(check, 10_000);
