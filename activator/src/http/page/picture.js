// The picture of a destination: the last keyframe that it has been sent, from its `keyframe.flv`, decoded in the browser (WebCodecs). A destination that
// lags or is away shows an older picture than the others. Where the browser cannot decode, or the page is not a secure context, words tell codec and
// size; where there is no picture, words tell why.
'use strict';

/** Milliseconds between two pictures of a destination, while it can be seen. */
const PICTURE_EVERY = 5000;
/** Destinations whose pictures are asked for in one round: those that have waited longest. */
const PICTURES_AT_ONCE = 12;
/** Width of a picture in pixels. */
const PICTURE_WIDTH = 192;

/** The last picture of each destination: a canvas to draw from, or words instead. */
const pictures = new Map();
/** The time at which each picture was asked for last. */
const asked = new Map();

const pictureKey = (stream, name) => `${stream.id}/${name}`;

const hex = (byte) => byte.toString(16).padStart(2, '0');

/** The codec string of an HEVC configuration record (ISO/IEC 14496-15, annex E). */
function hevc(record) {
  const view = new DataView(record.buffer, record.byteOffset, record.length);
  let flags = view.getUint32(2);
  let reversed = 0;
  for (let bit = 0; bit < 32; bit += 1, flags >>>= 1) reversed = ((reversed << 1) | (flags & 1)) >>> 0;
  const constraints = [...record.subarray(6, 12)];
  while (constraints.length && !constraints[constraints.length - 1]) constraints.pop();
  const space = ['', 'A', 'B', 'C'][record[1] >> 6];
  return [`hvc1.${space}${record[1] & 31}`, reversed.toString(16), `${record[1] & 32 ? 'H' : 'L'}${record[12]}`, ...constraints.map(hex)].join('.');
}

const two = (number) => String(number).padStart(2, '0');
/** The codec strings, by the four characters of Enhanced RTMP. */
const CODECS = {
  avc1: (record) => `avc1.${[...record.subarray(1, 4)].map(hex).join('')}`,
  hvc1: hevc,
  av01: (record) => `av01.${record[1] >> 5}.${two(record[1] & 31)}${record[2] & 128 ? 'H' : 'M'}.${record[2] & 64 ? '10' : '08'}`,
  vp09: (record) => `vp09.${two(record[4])}.${two(record[5])}.${two(record[6] >> 4)}`,
};
/** The codecs of legacy video tags. */
const LEGACY = { 7: 'avc1', 12: 'hvc1' };

/** Codec, configuration record and keyframe of a file; what is not there stays undefined. */
function readKeyframe(file) {
  const found = {};
  const view = new DataView(file);
  for (let at = 13; at + 15 <= view.byteLength;) {
    const length = view.getUint32(at) & 0xffffff;
    const tag = new Uint8Array(file, at + 11, length);
    if (view.getUint8(at) === 9 && length > 5) {
      const enhanced = (tag[0] & 0x80) !== 0;
      const packet = enhanced ? tag[0] & 15 : tag[1];
      found.codec = enhanced ? String.fromCharCode(...tag.subarray(1, 5)) : LEGACY[tag[0] & 15];
      // Coded frames of AVC and HEVC have a time in front, unless their packet type says that it is 0.
      const timed = enhanced && packet === 1 && (found.codec === 'avc1' || found.codec === 'hvc1');
      const payload = tag.subarray(timed ? 8 : 5);
      if (packet === 0) found.record = payload;
      else if (packet === 1 || (enhanced && packet === 3)) found.frame = payload;
    }
    at += 15 + length;
  }
  return found;
}

/** Decodes one keyframe; null if this browser cannot. */
async function decodeKeyframe({ codec, record, frame }) {
  if (!window.VideoDecoder || !CODECS[codec] || !record || !frame) return null;
  const config = { codec: CODECS[codec](record), optimizeForLatency: true };
  if (codec !== 'vp09') config.description = record;
  const { supported } = await VideoDecoder.isConfigSupported(config);
  if (!supported) return null;
  let decoder;
  try {
    return await new Promise((resolve, reject) => {
      decoder = new VideoDecoder({ output: resolve, error: reject });
      decoder.configure(config);
      decoder.decode(new EncodedVideoChunk({ type: 'key', timestamp: 0, data: frame }));
      decoder.flush().then(() => reject(new Error('no picture')), reject);
    });
  } finally {
    if (decoder && decoder.state !== 'closed') decoder.close();
  }
}

function draw(frame) {
  const canvas = document.createElement('canvas');
  canvas.width = Math.min(PICTURE_WIDTH, frame.displayWidth);
  canvas.height = Math.max(1, Math.round((canvas.width * frame.displayHeight) / frame.displayWidth));
  canvas.getContext('2d').drawImage(frame, 0, 0, canvas.width, canvas.height);
  frame.close();
  return canvas;
}

/** Words in place of a picture. */
function inWords(stream) {
  const video = stream.video || {};
  const size = video.width ? ` ${video.width}×${video.height}` : '';
  if (!video.codec) return stream.audio ? 'sound alone' : '';
  const why = window.isSecureContext ? 'this browser cannot decode it' : 'pictures need HTTPS or localhost';
  return `${video.codec}${size}: ${why}`;
}

async function askPicture(stream, name) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const path = `api/v1/streams/${encodeURIComponent(stream.id)}/destinations/${encodeURIComponent(name)}/keyframe.flv`;
  const answer = await fetch(path, { headers, cache: 'no-store' });
  const [key, at] = [pictureKey(stream, name), new Date()];
  if (!answer.ok) {
    // There is none for a reason that stays. Otherwise an earlier picture stays.
    const problem = answer.status === 404 ? await answer.json() : {};
    if (String(problem.type).endsWith(':excerpt-none') && !(pictures.get(key) || {}).canvas) keep(pictures, key, { words: problem.detail, at });
    return;
  }
  const frame = await decodeKeyframe(readKeyframe(await answer.arrayBuffer())).catch(() => null);
  keep(pictures, key, frame ? { canvas: draw(frame), at } : { words: inWords(stream), at });
}

/** True if a part of the element can be seen now. */
function isSeen(element) {
  const place = element.getBoundingClientRect();
  return place.bottom > 0 && place.top < window.innerHeight;
}

/** Asks for the pictures of the destinations that can be seen, one after the other, and draws them. */
async function refreshPictures(streams) {
  if (document.hidden) return;
  const seen = new Set([...document.querySelectorAll('article')].filter(isSeen).map((one) => one.dataset.stream));
  const wanted = streams.filter((one) => one.video && (one.state === 'live' || one.state === 'grace') && seen.has(one.id))
    .flatMap((stream) => stream.upstreams.map(({ name }) => ({ stream, name, before: asked.get(pictureKey(stream, name)) || 0 })))
    .sort((one, other) => one.before - other.before);
  for (const { stream, name } of wanted.slice(0, PICTURES_AT_ONCE)) {
    keep(asked, pictureKey(stream, name), Date.now());
    if (!window.VideoDecoder) keep(pictures, pictureKey(stream, name), { words: inWords(stream), at: new Date() });
    else await askPicture(stream, name).catch(() => {});
  }
  document.querySelectorAll('figure[data-stream]').forEach(showPicture);
}

/** Draws the last picture of a destination into its figure. */
function showPicture(figure) {
  const picture = pictures.get(`${figure.dataset.stream}/${figure.dataset.destination}`);
  if (!picture || figure.dataset.at === String(+picture.at)) return;
  figure.dataset.at = String(+picture.at);
  if (!picture.canvas) {
    figure.replaceChildren(make('figcaption', {}, picture.words));
    return;
  }
  const { width, height } = picture.canvas;
  const canvas = make('canvas', { width, height, role: 'img', 'aria-label': `Picture that ${figure.dataset.destination} was sent last` });
  canvas.getContext('2d').drawImage(picture.canvas, 0, 0);
  figure.replaceChildren(canvas, make('figcaption', {}, picture.at.toLocaleTimeString()));
}

/** The place of a picture. */
function figure(stream, destination) {
  const element = make('figure', { 'data-stream': stream.id, 'data-destination': destination });
  showPicture(element);
  return element;
}
