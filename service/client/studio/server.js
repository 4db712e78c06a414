// Requests to the service. Whatever passes by itself (a restart, a full queue, a cut connection) is
// waited for, and told meanwhile; what does not is thrown as a Problem.

import { askForKey, authorization, key } from "./key.js";

const LOCKED = 401;
const PASSING = [429, 502, 503, 504];
const LONGEST_WAIT = 8;
const TOO_LATE = 504;
const MOST_TOO_LATE = 2;

export class Problem extends Error {}

const banner = document.getElementById("trouble");
let waiting = 0;

function tell(message) {
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

/** What `read` makes of one answer; `why` there is none, and whether it is worth asking again. */
async function once(path, options, read) {
  const sent = key();
  try {
    const headers = { ...options.headers, ...authorization() };
    const answer = await fetch(path, { ...options, headers });
    if (answer.ok) return { found: await read(answer) };
    const { detail } = await answer.json().catch(() => ({}));
    if (answer.status === LOCKED) return { locked: true, why: detail, sent };
    return {
      why: detail ?? `The service answered ${answer.status}.`,
      passes: PASSING.includes(answer.status),
      late: answer.status === TOO_LATE,
      seconds: Number(answer.headers.get("Retry-After")),
    };
  } catch {
    return { why: "The service cannot be reached.", passes: true };
  } finally {
    options.signal?.throwIfAborted();
  }
}

/** What `read` makes of the answer to a GET, or to a POST of `body`. Throws a Problem. */
export async function ask(path, { body, signal, read = (answer) => answer } = {}) {
  const options = { signal };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let wait = 0.5;
  let late = 0;
  let waits = false;
  try {
    for (;;) {
      const outcome = await once(path, options, read);
      if ("found" in outcome) return outcome.found;
      if (outcome.locked) {
        if (key() === outcome.sent) await askForKey(outcome.sent ? outcome.why : ""); // else there is a newer one
        continue;
      }
      late += Boolean(outcome.late);
      if (!outcome.passes || late === MOST_TOO_LATE) throw new Problem(outcome.why);
      wait = outcome.seconds || Math.min(2 * wait, LONGEST_WAIT);
      waiting += !waits;
      waits = true;
      tell(`${outcome.why} Asking again in ${wait} s.`);
      await pause(wait, signal);
    }
  } finally {
    waiting -= waits;
    if (waits && !waiting) tell("");
  }
}

export const json = (path, options) => ask(path, { ...options, read: (answer) => answer.json() });
export const blob = (path, options) => ask(path, { ...options, read: (answer) => answer.blob() });

let recovering = Promise.resolve();

/** Show an image. One that does not come is asked for again, after those that failed before it. */
export function show(image, source) {
  image.dataset.source = source;
  image.classList.remove("missing");
  if (key()) {
    load(image, source);
    return;
  }
  image.src = source;
  image.onerror = () => {
    recovering = recovering.then(() => recover(image, source));
  };
}

async function recover(image, source) {
  if (image.dataset.source === source && image.isConnected) await load(image, source);
}

/** Show an image by a request of our own, which takes the key along, and is patient. */
async function load(image, source) {
  try {
    const url = URL.createObjectURL(await blob(source));
    image.onload = image.onerror = () => URL.revokeObjectURL(url);
    if (image.dataset.source === source) image.src = url;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    image.classList.add("missing");
    image.title = error.message;
  }
}

/** Run what a person asked for; what is wrong with it is told in `place`. */
export async function attempt(place, work) {
  try {
    const result = await work();
    place.textContent = "";
    return result;
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Problem)) throw error;
    place.textContent = error.message;
    return undefined;
  }
}
