'use strict';

const { createHash, timingSafeEqual } = require('node:crypto');

const digest = (value) => createHash('sha256').update(value).digest();

/** Compares in constant time, whatever the lengths. */
function sameSecret(given, wanted) {
  return wanted !== '' && timingSafeEqual(digest(given), digest(wanted));
}

/** The key of a request: X-Heady-Api-Key, a bearer token, or the password of basic auth (browsers). */
function keyOf(req) {
  const own = req.get('x-heady-api-key');
  if (own) return own;
  const [scheme, value = ''] = (req.get('authorization') ?? '').split(' ', 2);
  if (/^bearer$/i.test(scheme)) return value;
  if (/^basic$/i.test(scheme)) return Buffer.from(value, 'base64').toString('utf8').replace(/^[^:]*:/, '');
  return '';
}

/** Lets a request pass only with the secret. An unset secret closes the door, it does not open it. */
function requireSecret(secret, { realm = 'heady-manager' } = {}) {
  return (req, res, next) => {
    if (secret === '') {
      res.status(503).json({ error: 'not_configured', message: 'The key of this endpoint is not configured.' });
      return;
    }
    if (!sameSecret(keyOf(req), secret)) {
      res.set('WWW-Authenticate', `Basic realm="${realm}", charset="UTF-8"`).status(401).json({ error: 'unauthorized' });
      return;
    }
    res.set('Cache-Control', 'no-store');
    next();
  };
}

module.exports = { requireSecret, sameSecret };
