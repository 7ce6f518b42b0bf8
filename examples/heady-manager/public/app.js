'use strict';

const show = (form, value) => { form.querySelector('pre').textContent = JSON.stringify(value, null, 2); };

function ask(id, route, bodyOf) {
  const form = document.getElementById(id);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const answer = await fetch(route, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(bodyOf(form.elements.text.value)),
    }).then((r) => r.json()).catch((error) => ({ error: error.message }));
    show(form, answer);
  });
}

ask('infer', '/api/infer', (text) => ({ text }));
ask('audit', '/api/audit', (document) => ({ document }));

fetch('/api/health').then((r) => r.json()).then(({ version }) => {
  document.getElementById('health').textContent = `version ${version} is up`;
});

const list = document.getElementById('events');
const events = new EventSource('/api/events');
for (const type of ['inference', 'audit', 'job', 'worker-restart', 'restart']) {
  events.addEventListener(type, ({ data }) => {
    const item = document.createElement('li');
    item.textContent = `${type} ${data}`;
    list.prepend(item);
    while (list.children.length > 20) list.lastChild.remove();
  });
}
