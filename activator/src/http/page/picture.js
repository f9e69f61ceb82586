// The picture of a stream: its last keyframe, from `keyframe.flv`, decoded in the browser (WebCodecs). Every destination that is live gets the same
// pictures, so one answer is drawn for all of them. Where the browser cannot decode, or the page is not a secure context, words tell codec and size.
'use strict';

/** Milliseconds between two pictures of a stream, while it can be seen. */
const PICTURE_EVERY = 5000;
/** Streams whose pictures are asked for in one round. */
const PICTURES_AT_ONCE = 12;
/** Width of a picture in pixels. */
const PICTURE_WIDTH = 192;

/** The last picture of each stream: a canvas to draw from, or words instead. */
const pictures = new Map();

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

async function askPicture(stream) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(`api/v1/streams/${encodeURIComponent(stream.id)}/keyframe.flv`, { headers, cache: 'no-store' });
  // No keyframe is kept at the moment, or another activator has it: an earlier picture stays.
  if (!answer.ok) return;
  const frame = await decodeKeyframe(readKeyframe(await answer.arrayBuffer())).catch(() => null);
  const at = new Date();
  keep(pictures, stream.id, frame ? { canvas: draw(frame), at } : { words: inWords(stream), at });
}

/** True if a part of the element can be seen now. */
function isSeen(element) {
  const place = element.getBoundingClientRect();
  return place.bottom > 0 && place.top < window.innerHeight;
}

/** Asks for the pictures of the streams that can be seen, one after the other, and draws them. */
async function refreshPictures(streams) {
  if (document.hidden) return;
  const seen = new Set([...document.querySelectorAll('article')].filter(isSeen).map((one) => one.dataset.stream));
  for (const stream of streams.filter((one) => one.state === 'live' && seen.has(one.id)).slice(0, PICTURES_AT_ONCE)) {
    if (!stream.video) continue;
    if (!window.VideoDecoder) keep(pictures, stream.id, { words: inWords(stream), at: new Date() });
    else await askPicture(stream).catch(() => {});
  }
  document.querySelectorAll('figure[data-stream]').forEach(showPicture);
}

/** Draws the last picture of a stream into a figure. */
function showPicture(figure) {
  const picture = pictures.get(figure.dataset.stream);
  if (!picture || figure.dataset.at === String(+picture.at)) return;
  figure.dataset.at = String(+picture.at);
  if (!picture.canvas) {
    figure.replaceChildren(make('figcaption', {}, picture.words));
    return;
  }
  const { width, height } = picture.canvas;
  const canvas = make('canvas', { width, height, role: 'img', 'aria-label': `Picture that ${figure.dataset.destination} receives` });
  canvas.getContext('2d').drawImage(picture.canvas, 0, 0);
  figure.replaceChildren(canvas, make('figcaption', {}, picture.at.toLocaleTimeString()));
}

/** The place of a picture: of a destination that is live. */
function figure(stream, destination) {
  const element = make('figure', { 'data-stream': stream.id, 'data-destination': destination });
  showPicture(element);
  return element;
}
