// The page at `/`: what the API shows, and buttons for what it changes. It reads `api/v1/…` relative to itself, so that it works under any prefix.
'use strict';

const byId = (id) => document.getElementById(id);
const PHASES = ['pushed', 'scaled', 'pod_created', 'scheduled', 'process_started', 'registered', 'handed_over', 'live', 'media'];
/** Milliseconds between two readings when no event comes. */
const EVERY = 2000;
const KEPT_EVENTS = 200;
const KEPT_STARTS = 12;

/** Words for what to do about the class of a failure. */
const REMEDIES = {
  unknown_host: 'Check the host in the URL, and the DNS of the relay.',
  connection_refused: 'Check host and port, and whether the server runs.',
  unreachable: 'Check routes and firewalls between the relay and the server.',
  no_answer: 'The server is slow or filtered. The relay waits longer at each attempt.',
  untrusted: 'The certificate is not trusted. Mend it, or add its authority to SSL_CERT_FILE.',
  protocol: 'The port does not speak RTMP: rtmps:// is for servers with TLS, rtmp:// for those without.',
  denied: 'The server refuses the user or the password.',
  refused: 'The server refuses the stream: check the key, and whether somebody else is live with it.',
  closed: 'The server closes the connection: check the key, and the page of your broadcast there.',
  lost: 'The connection broke. The relay has dialed again and repeats what was missed.',
  never_lasted: 'The server closes soon after each start: check the key and the settings of your encoder.',
  bad_name: 'The server does not know the app or the stream.',
  bad_redirect: 'The server sends the relay to an address that cannot be used.',
};

let token = sessionStorage.getItem('token') || '';
let follow = null;
let due = null;
let shown = '';
/** Streams of the last reading. */
let listed = [];
/** The last error of each destination that this page has seen, by the destination's path: the relay forgets it when a session is live again. */
const errors = new Map();
/** Names of publishers by the id of their stream: no activator holds a publisher that is lost, but the events tell its name. */
const names = new Map();
const KEPT = 500;
/** Id of the newest event. */
let newest = '';

async function ask(path, method = 'GET', body = undefined) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  const answer = await fetch(`api/v1/${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store' });
  const text = await answer.text();
  if (!answer.ok) {
    let problem = {};
    try { problem = JSON.parse(text); } catch { /* It is no JSON: the status has to do. */ }
    const error = new Error([problem.title || `status ${answer.status}`, problem.detail].filter(Boolean).join(': '));
    error.status = answer.status;
    throw error;
  }
  return text ? JSON.parse(text) : null;
}

/** An element with text or children; text is never read as HTML. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'onclick') element.addEventListener('click', value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ''));
  return element;
}

function svg(name, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const bits = (rate) => (rate >= 1e6 ? `${(rate / 1e6).toFixed(2)} Mbit/s` : `${(rate / 1e3).toFixed(0)} kbit/s`);
const seconds = (time) => (time < 0.0995 ? `${Math.round(time * 1000)} ms` : `${time.toFixed(1)} s`);
const clock = (text) => new Date(text).toLocaleTimeString();

/** Worker-seconds in words: what workers have run, and what they would have run always on. */
function saved({ used, avoided }) {
  const long = (time) => (time < 90 ? `${Math.round(time)} s` : time < 5400 ? `${Math.round(time / 60)} min` : `${(time / 3600).toFixed(1)} h`);
  const share = used + avoided > 0 ? Math.floor((100 * avoided) / (used + avoided)) : 0;
  return `Worker time since the start: ${long(used)} used, ${long(avoided)} avoided (${share} %)`;
}

function ago(text) {
  const passed = Math.max(0, (Date.now() - new Date(text)) / 1000);
  if (passed < 90) return `${Math.round(passed)} s`;
  if (passed < 5400) return `${Math.round(passed / 60)} min`;
  return `${(passed / 3600).toFixed(1)} h`;
}

const TONES = { held: 'wait', live: 'good', ready: 'good', 'this one': 'good', synced: 'good', unreachable: 'bad', starting: 'wait', waiting: 'wait', dialing: 'wait', grace: 'wait', ending: 'wait', backoff: 'bad', failed: 'bad', drained: 'wait', draining: 'wait' };
const WORDS = { held: 'waits with its publisher', grace: 'publisher lost, waited for', ending: 'publisher gone, the rest is sent', waiting: 'held, waits for a worker', backoff: 'down, dialed again', failed: 'down, refuses' };
const state = (word) => make('span', { class: `state ${TONES[word] || ''}` }, WORDS[word] || word);

/** A button. `key` names its purpose, by which the focus finds it again when the page is drawn anew. */
function button(text, label, key, action, confirmation) {
  const act = async (event) => {
    const pressed = event.currentTarget;
    if (pressed.getAttribute('aria-disabled') || (confirmation && !window.confirm(confirmation))) return;
    // A disabled button would lose the keyboard's focus.
    pressed.setAttribute('aria-disabled', 'true');
    try {
      await action();
      trouble('');
    } catch (error) {
      trouble(error.status === 401 || error.status === 403 ? `${error.message} Use the button Token.` : error.message);
    } finally {
      pressed.removeAttribute('aria-disabled');
      soon(0);
    }
  };
  return make('button', { type: 'button', 'aria-label': label, 'data-key': key, onclick: act }, text);
}

function trouble(text) {
  byId('trouble').textContent = text;
  byId('trouble').hidden = !text;
}

function describe(stream) {
  const video = stream.video || {};
  const size = video.width ? `${video.width}×${video.height}` : '';
  const rate = video.frame_rate ? `${video.frame_rate} fps` : '';
  const key = video.keyframe_interval ? `keyframe every ${video.keyframe_interval.toFixed(1)} s` : '';
  const parts = [stream.state === 'live' && bits(stream.bitrate), video.codec, size, rate, key, stream.audio && stream.audio.codec];
  const from = [stream.peer && `from ${stream.peer}`, stream.since && `for ${ago(stream.since)}`, stream.worker && `on ${stream.worker}`];
  return parts.concat(from).filter(Boolean).join(' · ');
}

/** An error without the kernel's number. */
const plain = (text) => text.replace(/ \(os error \d+\)/, '');

function destination(stream, title, wanted, upstream) {
  const name = wanted.name;
  const turn = wanted.enabled ? 'Disable' : 'Enable';
  const path = `streams/${encodeURIComponent(stream.id)}/destinations/${encodeURIComponent(name)}`;
  const fails = upstream && upstream.error && upstream.state !== 'live';
  if (upstream && upstream.error) {
    keep(errors, path, `${clock(upstream.failed || Date.now())} ${plain(upstream.error)}`);
  }
  const notes = [];
  if (fails) notes.push(make('span', { class: 'said' }, plain(upstream.error)));
  if (fails && REMEDIES[upstream.fault]) notes.push(make('span', { class: 'remedy' }, REMEDIES[upstream.fault]));
  if (!fails && errors.has(path)) notes.push(make('span', { class: 'remedy' }, `before: ${errors.get(path)}`));
  const figures = upstream ? [`${seconds(upstream.lag || 0)} behind`, `${upstream.lost} lost`, `${upstream.reconnects} ${upstream.reconnects === 1 ? 'reconnect' : 'reconnects'}`].map((part) => part.replaceAll(' ', '\u00a0')).join(' · ') : '';
  const unsent = stream.state === 'waiting' ? 'held' : 'starting';
  const word = wanted.enabled ? (upstream ? upstream.state : unsent) : 'off';
  // Without a publisher there is nothing to change, and without a session none to restart.
  const restart = wanted.enabled && upstream && button('Restart', `Restart ${name} of ${title}`, `${path}/restart`, () => ask(`${path}/restart`, 'POST'));
  const actions = wanted.known === false ? [] : [restart || null,
    button(turn, `${turn} ${name} of ${title}`, `${path}/switch`, () => ask(path, 'PATCH', { enabled: !wanted.enabled })),
    button('Remove', `Remove ${name} of ${title}`, `${path}/remove`, () => ask(path, 'DELETE'), `Remove ${name} from the stream of ${title}?`)];
  return make('tr', {},
    make('th', { scope: 'row' }, name, wanted.by_api ? ' (changed here)' : '', upstream && upstream.backup ? ' (backup)' : ''),
    make('td', {}, state(word), ...notes),
    make('td', { class: 'number' }, figures),
    make('td', {}, upstream && wanted.enabled ? figure(stream, name) : null),
    make('td', {}, make('div', { class: 'actions' }, ...actions)));
}

/** Sets a value; the one that was set longest ago makes room. */
function keep(map, key, value) {
  map.delete(key);
  map.set(key, value);
  if (map.size > KEPT) map.delete(map.keys().next().value);
}

const named = (stream) => stream.publisher || names.get(stream.id) || `${stream.app} ${stream.id.slice(0, 6)}`;

function article(stream, wanted) {
  const title = named(stream);
  const path = `streams/${encodeURIComponent(stream.id)}`;
  const rows = wanted.map((one) => destination(stream, title, one, stream.upstreams.find((upstream) => upstream.name === one.name)));
  return make('article', { 'aria-label': title, 'data-stream': stream.id },
    make('header', {}, make('h3', {}, title), state(stream.state), make('p', { class: 'facts' }, describe(stream)),
      make('div', { class: 'actions' },
        // No activator holds a lost publisher, so nothing can be added to its stream.
        ['grace', 'ending'].includes(stream.state) ? null : button('Add…', `Add a destination to ${title}`, `${path}/add`, () => add(stream.id)),
        button('Kick', `End the stream of ${title}`, `${path}/kick`, () => ask(`${path}/kick`, 'POST', { reason: 'ended on the page' }), `End the stream of ${title}?`))),
    make('div', { class: 'scroll', tabindex: '0', role: 'group', 'data-key': path, 'aria-label': `Destinations of ${title}` }, make('table', {},
      make('thead', {}, make('tr', {}, ...['Destination', 'State', 'Figures', 'Picture'].map((text) => make('th', { scope: 'col' }, text)), make('th', { scope: 'col' }, make('span', { class: 'unseen' }, 'Actions')))),
      make('tbody', {}, ...rows))));
}

function filled(id) {
  const dialog = byId(id);
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'save'), { once: true });
    dialog.returnValue = '';
    dialog.showModal();
  });
}

async function add(id) {
  byId('add-name').value = '';
  byId('add-url').value = '';
  if (await filled('add-dialog')) {
    await ask(`streams/${encodeURIComponent(id)}/destinations`, 'POST', { name: byId('add-name').value, url: byId('add-url').value });
  }
}

/** Replaces the children, unless nothing has changed. The focus goes to the element with the same key, or else to the section. */
function replace(parent, children, shown) {
  if (parent.dataset.shown === shown) return;
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.key || '' : null;
  const scrolled = new Map([...parent.querySelectorAll('.scroll')].map((one) => [one.dataset.key, one.scrollLeft]));
  parent.replaceChildren(...children);
  parent.dataset.shown = shown;
  for (const one of parent.querySelectorAll('.scroll')) one.scrollLeft = scrolled.get(one.dataset.key) || 0;
  if (focused !== null) (parent.querySelector(`[data-key="${CSS.escape(focused)}"]`) || parent.closest('section')).focus({ preventScroll: true });
}

async function read() {
  const [demand, streams, workers, activators] = await Promise.all([ask('demand'), ask('streams'), ask('workers'), ask('activators')]);
  listed = streams;
  showActivators(activators);
  const wanted = await Promise.all(streams.map((stream) => ask(`streams/${encodeURIComponent(stream.id)}/destinations`)
    // No activator holds the publisher: its worker tells of the upstreams.
    .catch(() => stream.upstreams.map(({ name }) => ({ name, enabled: true, known: false })))));
  byId('summary').textContent = `${demand.live} live · ${demand.waiting} waiting · ${workers.length} ${workers.length === 1 ? 'worker' : 'workers'}`;
  const articles = streams.map((stream, at) => article(stream, wanted[at]));
  replace(byId('streams'), articles.length ? articles : [make('p', { class: 'hint' }, 'No publisher is here.')], JSON.stringify([streams, wanted, streams.map(named)]));
  const order = (worker, what) => ask(`workers/${encodeURIComponent(worker.name)}/${what}`, 'POST');
  const rows = workers.map((worker) => make('tr', {},
    make('th', { scope: 'row' }, worker.name), make('td', {}, state(worker.state)), make('td', { class: 'number' }, `${worker.streams} of ${worker.capacity}`),
    make('td', {}, worker.state === 'drained'
      ? button('Undrain', `Let ${worker.name} take streams again`, worker.name, () => order(worker, 'undrain'))
      : button('Drain', `Move the streams of ${worker.name} to others`, worker.name, () => order(worker, 'drain')))));
  replace(byId('workers').tBodies[0], rows, JSON.stringify(workers));
  if (demand.worker_seconds) byId('saved').textContent = saved(demand.worker_seconds);
}

async function refresh() {
  due = null;
  try {
    await read();
    if (shown === 'read') trouble('');
    shown = '';
    if (!follow) followEvents();
  } catch (error) {
    shown = 'read';
    byId('summary').textContent = 'not connected';
    const closed = error.status === 401 || error.status === 403;
    trouble(closed ? `${error.message} Use the button Token.` : `The relay does not answer: ${error.message}`);
  }
  soon(document.hidden ? 10 * EVERY : EVERY);
}

/** The activators, and KEDA's last question. */
function showActivators({ name, peers, keda }) {
  const rows = [make('tr', {}, make('th', { scope: 'row' }, name), make('td', {}, state('this one')))];
  peers.forEach((peer) => rows.push(make('tr', {}, make('th', { scope: 'row' }, peer.name), make('td', {}, state(peer.state)))));
  const asked = keda ? `KEDA asked ${ago(keda.asked)} ago and was told ${keda.value}.` : 'KEDA has not asked this activator.';
  byId('keda').textContent = asked;
  replace(byId('activators').tBodies[0], rows, JSON.stringify([name, peers]));
}

/** Reads again after this time, or sooner if that was due already. */
function soon(time) {
  const at = Date.now() + time;
  if (due && due.at <= at) return;
  if (due) clearTimeout(due.timer);
  due = { at, timer: setTimeout(refresh, time) };
}

function happened(event) {
  const { id, type, timestamp, data = {} } = event;
  if (type === 'events.missed' && !data.missed) return;
  newest = id;
  if (data.stream && data.publisher) keep(names, data.stream, data.publisher);
  const who = data.publisher || data.worker || '';
  const words = Object.entries(data).filter(([key, value]) => value !== false && value !== null && !['publisher', 'stream', 'app'].includes(key)).map(([key, value]) => (value === true ? key : `${key.replace(/_seconds$/, '')} ${typeof value === 'number' ? Math.round(value * 1000) / 1000 : value}`));
  const list = byId('events');
  list.prepend(make('li', {}, make('time', { datetime: timestamp }, clock(timestamp)), make('strong', {}, type), ` ${who} ${words.join(', ')}`));
  while (list.children.length > KEPT_EVENTS) list.lastChild.remove();
  if (type === 'start.cold') coldStart(timestamp, data);
  soon(200);
}

function coldStart(timestamp, data) {
  const times = PHASES.map((phase) => data[`${phase}_seconds`] || 0);
  const whole = times.reduce((sum, time) => sum + time, 0) || 1;
  const known = PHASES.filter((phase) => data[`${phase}_seconds`] !== undefined);
  const text = known.map((phase) => `${phase.replace('_', ' ')} ${seconds(data[`${phase}_seconds`])}`).join(', ');
  let x = 0;
  const bars = times.map((time, at) => {
    const width = (100 * time) / whole;
    const bar = svg('rect', { class: `phase${at}`, x, y: 0, width, height: 10 });
    x += width;
    return bar;
  });
  const list = byId('starts');
  list.prepend(make('li', {}, `${clock(timestamp)} ${data.publisher || ''} ${seconds(whole)}`,
    svg('svg', { viewBox: '0 0 100 10', preserveAspectRatio: 'none', role: 'img', 'aria-label': text }, ...bars), make('span', { class: 'legend' }, text)));
  while (list.children.length > KEPT_STARTS) list.lastChild.remove();
}

/** Server-sent events with a header, which EventSource cannot send. */
async function followEvents() {
  follow = new AbortController();
  let last = '';
  try {
    // Behind an event that never was come all that the activator keeps, and then the new ones.
    const headers = { 'last-event-id': newest || '0000000000000000-0' };
    if (token) headers.authorization = `Bearer ${token}`;
    const answer = await fetch('api/v1/events', { headers, signal: follow.signal, cache: 'no-store' });
    if (!answer.ok) throw new Error(`events: ${answer.status}`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      last += value;
      const messages = last.split('\n\n');
      last = messages.pop();
      for (const message of messages) {
        const data = message.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join('');
        if (data) happened(JSON.parse(data));
      }
    }
  } catch {
    // The next reading tries again.
  }
  follow = null;
}

byId('token-button').addEventListener('click', async () => {
  byId('token').value = token;
  if (await filled('token-dialog')) {
    token = byId('token').value.trim();
    if (token) sessionStorage.setItem('token', token);
    else sessionStorage.removeItem('token');
    follow?.abort();
    soon(0);
  }
});
async function lookAgain() {
  await refreshPictures(listed).catch(() => {});
  setTimeout(lookAgain, pictures.size ? PICTURE_EVERY : EVERY);
}
document.addEventListener('visibilitychange', () => { if (!document.hidden) soon(0); });
refresh();
setTimeout(lookAgain, EVERY);
