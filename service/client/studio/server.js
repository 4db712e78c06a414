// Requests to the service. Temporary failures (a restart, a full queue, a lost connection) are
// retried and shown meanwhile; others are thrown as a Problem.

import { requestKey, authorization, key } from "./key.js";
import { at } from "./page.js";

const UNAUTHORIZED = 401;
const RETRIED = [429, 502, 503, 504];
const MAX_WAIT_SECONDS = 8;
const TIMEOUT = 504;
const MAX_TIMEOUTS = 2;

export class Problem extends Error {}

const banner = document.getElementById("trouble");
let waiting = 0;

function showTrouble(message) {
  banner.textContent = message;
  banner.hidden = !message;
}

export const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

/** One attempt: `found` is the result of `read`, otherwise `why` it failed and whether to retry. */
async function once(path, options, read) {
  const sent = key();
  try {
    const headers = { ...options.headers, ...authorization() };
    const answer = await fetch(at(path), { ...options, headers });
    if (answer.ok) return { found: await read(answer) };
    const { detail } = await answer.json().catch(() => ({}));
    if (answer.status === UNAUTHORIZED) return { locked: true, why: detail, sent };
    return {
      why: detail ?? `The service answered ${answer.status}.`,
      retry: RETRIED.includes(answer.status),
      timeout: answer.status === TIMEOUT,
      seconds: Number(answer.headers.get("Retry-After")),
    };
  } catch {
    return { why: "The service cannot be reached.", retry: true };
  } finally {
    options.signal?.throwIfAborted();
  }
}

/** Result of `read` on the answer to a GET, or to a POST of `body`. Throws a Problem. */
export async function request(path, { body, signal, read = (answer) => answer } = {}) {
  const options = { signal };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let wait = 0.5;
  let timeouts = 0;
  let waits = false;
  try {
    for (;;) {
      const outcome = await once(path, options, read);
      if ("found" in outcome) return outcome.found;
      if (outcome.locked) {
        if (key() === outcome.sent) await requestKey(outcome.sent ? outcome.why : ""); // otherwise retry with the newer key
        continue;
      }
      timeouts += Boolean(outcome.timeout);
      if (!outcome.retry || timeouts === MAX_TIMEOUTS) throw new Problem(outcome.why);
      wait = outcome.seconds || Math.min(2 * wait, MAX_WAIT_SECONDS);
      waiting += !waits;
      waits = true;
      showTrouble(`${outcome.why} Retrying in ${wait} s.`);
      await pause(wait, signal);
    }
  } finally {
    waiting -= waits;
    if (waits && !waiting) showTrouble("");
  }
}

export const json = (path, options) => request(path, { ...options, read: (answer) => answer.json() });
export const blob = (path, options) => request(path, { ...options, read: (answer) => answer.blob() });

let recovering = Promise.resolve();

/** Shown until an image has come, so that its place is no broken image. */
export const BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

/** Show an image. Failed images are loaded again one at a time, in order. */
export function show(image, source) {
  image.dataset.source = source;
  if (key()) {
    image.src ||= BLANK;
    load(image, source);
    return;
  }
  image.src = at(source);
  image.onerror = () => {
    image.src = BLANK;
    recovering = recovering.then(() => recover(image, source));
  };
}

async function recover(image, source) {
  if (image.dataset.source === source && image.isConnected) await load(image, source);
}

/** Show an image through `request`, which sends the key and retries; in its place, why it failed. */
async function load(image, source) {
  try {
    const url = URL.createObjectURL(await blob(source));
    image.onload = image.onerror = () => URL.revokeObjectURL(url);
    if (image.dataset.source === source) image.src = url;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (image.dataset.source !== source) return;
    image.alt = image.title = `${error.message} ${image.alt}`;
    image.removeAttribute("src"); // the text is shown instead
  }
}

/** Run `work` and show the message of a Problem in `element`. */
export async function attempt(element, work) {
  try {
    const result = await work();
    element.textContent = "";
    return result;
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Problem)) throw error;
    element.textContent = error.message;
    return undefined;
  }
}
