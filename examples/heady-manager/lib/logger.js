'use strict';

const LEVELS = { debug: 10, info: 20, warn: 30, error: 40 };

/** One line per event: JSON for machines, text for people. */
function createLogger({ format = 'text', level = 'info', write = (line) => process.stdout.write(line) } = {}) {
  const floor = LEVELS[level] ?? LEVELS.info;
  function log(name, msg, fields = {}) {
    if (LEVELS[name] < floor) return;
    const ts = new Date().toISOString();
    if (format === 'json') {
      write(`${JSON.stringify({ ts, level: name, msg, ...fields })}\n`);
      return;
    }
    const rest = Object.entries(fields).map(([k, v]) => `${k}=${typeof v === 'string' ? v : JSON.stringify(v)}`).join(' ');
    write(`${ts} ${name.padEnd(5)} ${msg}${rest ? ` ${rest}` : ''}\n`);
  }
  return Object.fromEntries(Object.keys(LEVELS).map((name) => [name, (msg, fields) => log(name, msg, fields)]));
}

module.exports = { createLogger };
