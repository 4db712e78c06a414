// What a person has chosen. It is kept in the page's address, so that a link shows the same.

const LABEL = "label.";

/** An image of a seed: what its address says. */
const readPoint = (text) => {
  const query = new URLSearchParams(text);
  if (!query.has("seed")) return null;
  const point = { seed: Number(query.get("seed")), index: Number(query.get("index")) };
  if (query.has("label")) point.label = query.get("label");
  point.truncation = Number(query.get("truncation") ?? 1);
  return point;
};

const number = (text, fallback, low, high) => {
  const value = Number(text);
  return text === null || text === "" || !(value >= low && value <= high) ? fallback : value;
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
    seed: Math.floor(number(query.get("seed"), 1, 0, Number.MAX_SAFE_INTEGER)),
    truncation: number(query.get("truncation"), 1, 0.1, 1),
    verify: number(query.get("verify"), 0, 0, 0.99),
    image: number(query.get("image"), null, 0, Number.MAX_SAFE_INTEGER),
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
