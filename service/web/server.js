// Requests to the service. Whatever passes by itself (a restart, a full queue) is waited for, and
// told meanwhile; what does not is thrown as a Problem.

const PASSING = [429, 502, 503, 504];
const LONGEST_WAIT = 8;

export class Problem extends Error {}

const banner = document.getElementById("trouble");
let waiting = 0;

function tell(message) {
  banner.textContent = message;
  banner.hidden = !message;
}

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

async function once(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    return null; // nobody answers
  }
}

async function explain(answer) {
  const problem = await answer.json().catch(() => ({}));
  return problem.detail ?? `The service answered ${answer.status}.`;
}

/** The answer to a GET, or to a POST of `body`. */
export async function ask(path, { body, signal } = {}) {
  const options = { signal };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let wait = 0.5;
  let waits = false;
  try {
    for (;;) {
      const answer = await once(path, options);
      if (answer?.ok) return answer;
      const why = answer ? await explain(answer) : "The service cannot be reached.";
      if (answer && !PASSING.includes(answer.status)) throw new Problem(why);
      wait = Number(answer?.headers.get("Retry-After")) || Math.min(2 * wait, LONGEST_WAIT);
      if (!waits) waiting += 1;
      waits = true;
      tell(`${why} Asking again in ${wait} s.`);
      await pause(wait, signal);
    }
  } finally {
    if (waits) waiting -= 1;
    if (waits && !waiting) tell("");
  }
}

export const json = async (path, options) => (await ask(path, options)).json();
export const blob = async (path, options) => (await ask(path, options)).blob();

/** Show an image; if it does not come, wait for the service and try again. */
export function show(image, source) {
  image.onerror = async () => {
    image.onerror = () => image.classList.add("missing");
    await ask("/readyz");
    show(image, source);
  };
  image.src = source;
}

/** Run what a person asked for; what is wrong with it is told in `place`. */
export async function attempt(place, work) {
  place.textContent = "";
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Problem)) throw error;
    place.textContent = error.message;
    return undefined;
  }
}
