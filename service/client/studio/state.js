// The choices on the page. They are kept in its URL, so that a link shows the same.

const LABEL = "label.";

const number = (text, fallback, low, high) => {
  const value = Number(text);
  return text === null || text === "" || !(value >= low && value <= high) ? fallback : value;
};

const whole = (text, fallback) => {
  const value = number(text, fallback, 0, Number.MAX_SAFE_INTEGER);
  return value === null ? null : Math.floor(value);
};

/** Parse an image of a seed from the URL; null if invalid. */
const readPoint = (text) => {
  const query = new URLSearchParams(text);
  const seed = whole(query.get("seed"), null);
  if (seed === null) return null;
  const point = { seed, index: whole(query.get("index"), 0) };
  if (query.get("label")) point.label = query.get("label");
  point.truncation = number(query.get("truncation"), 1, 0.1, 1);
  return point;
};

export function read(search) {
  const query = new URLSearchParams(search);
  const labels = {};
  for (const [name, value] of query) {
    if (name.startsWith(LABEL)) labels[name.slice(LABEL.length)] = value;
  }
  return {
    model: query.get("model"),
    version: number(query.get("version"), null, 1, 999999999),
    labels,
    seed: whole(query.get("seed"), 1),
    truncation: number(query.get("truncation"), 1, 0.1, 1),
    verify: number(query.get("verify"), 0, 0, 1 - Number.EPSILON),
    image: whole(query.get("image"), null),
    start: readPoint(query.get("start") ?? ""),
    end: readPoint(query.get("end") ?? ""),
  };
}

export function write(state) {
  const query = new URLSearchParams();
  query.set("model", state.model);
  query.set("version", state.version);
  for (const [name, value] of Object.entries(state.labels)) query.set(LABEL + name, value);
  query.set("seed", state.seed);
  if (state.truncation !== 1) query.set("truncation", state.truncation);
  if (state.verify) query.set("verify", state.verify);
  if (state.image !== null) query.set("image", state.image);
  for (const end of ["start", "end"]) {
    if (state[end]) query.set(end, new URLSearchParams(state[end]));
  }
  return `?${query}`;
}
