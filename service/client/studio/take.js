// Download of a set: estimated size and duration, command line, download in the browser.

import { $, make, save, service, shell } from "./page.js";
import { attempt, json, request } from "./server.js";

const SUFFIXES = { webdataset: "tar", zip: "zip", parquet: "parquet", npy: "npy" };
const MAX_IN_BROWSER = 20_000; // images, all in memory
const MAX_LABELS = 1024;
const SAMPLE = 16;

const megabytes = (bytes) =>
  bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB`
  : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB`
  : `${(bytes / 1e9).toFixed(1)} GB`;

const duration = (seconds) =>
  seconds < 90 ? `${Math.max(1, Math.round(seconds))} s`
  : seconds < 5400 ? `${Math.round(seconds / 60)} min`
  : `${(seconds / 3600).toFixed(1)} h`;

export class Take {
  constructor() {
    $("take").addEventListener("input", () => {
      if (!this.loading) this.message = null;
      this.describe();
    });
    $("take").addEventListener("submit", (event) => {
      event.preventDefault();
      this.download();
    });
    $("cancel").addEventListener("click", () => this.stop?.abort());
  }

  async start(model, state) {
    const other = model !== this.model;
    Object.assign(this, { model, state: structuredClone(state), sample: null });
    if (other) {
      $("balance").replaceChildren(
        make("legend", {}, "Balance by"),
        ...model.attributes.map(({ name }) =>
          make(
            "label",
            { className: "chip" },
            make("input", { type: "checkbox", name: "balance", value: name }),
            make("span", {}, name),
          ),
        ),
      );
      $("balance").hidden = !model.attributes.length;
      model.showRights($("rights"));
    }
    if (!this.loading) this.message = null;
    this.describe();
    this.measuring?.abort();
    this.measuring = new AbortController();
    const { signal } = this.measuring;
    const body = { ...model.request(state), n: SAMPLE };
    this.sample = await attempt($("estimate"), async () => {
      const answer = await json("/generate", { body, signal });
      const { images_per_second: rate } = await json("/info", { signal });
      const files = answer.images.map(({ data }) => (data.length * 3) / 4);
      const bytes = files.reduce((sum, size) => sum + size) / files.length;
      return { rate: rate ?? 100, bytes, tries: (answer.tried ?? SAMPLE) / SAMPLE };
    });
    if (!signal.aborted && this.sample) this.describe();
  }

  /** Labels of the set, in rotation; empty if all are drawn, null if there are too many. */
  labels() {
    const balanced = [...$("balance").querySelectorAll("input:checked")].map(({ value }) => value);
    const free = this.model.attributes.filter(
      ({ name }) => balanced.includes(name) && !Object.hasOwn(this.state.labels, name),
    );
    const count = free.reduce((product, { values }) => product * values.length, 1);
    if (count > MAX_LABELS) return null;
    let rows = [this.state.labels];
    for (const { name, values } of free) {
      rows = rows.flatMap((row) => values.map((value) => ({ ...row, [name]: value })));
    }
    return rows.map((row) => this.model.phrase(row)).filter((phrase) => phrase !== null);
  }

  request() {
    const body = { ...this.model.request(this.state), n: Number($("count").value) };
    const labels = this.labels();
    if (labels?.length) body.label = labels.length === 1 ? labels[0] : labels;
    return body;
  }

  describe() {
    if (!this.model || !$("count").validity.valid) {
      $("estimate").textContent = "Enter a number from 1 to 10,000,000.";
      return;
    }
    if (this.labels() === null) {
      $("download").disabled = true;
      $("command").textContent = "";
      $("estimate").textContent = `Too many combinations of labels: at most ${MAX_LABELS}.`;
      return;
    }
    const { n, label, truncation, verify, seed, model, version } = this.request();
    const labels = [label ?? []].flat();
    const format = $("format").value;
    const words = [
      `figment fetch -n ${n}`,
      `--model ${model} --model-version ${version} --seed ${seed}`,
      ...(truncation ? [`--truncation ${truncation}`] : []),
      ...(verify ? [`--verify ${verify}`] : []),
      `--format ${format} --server ${shell(service())} --out ${model}`,
      ...(labels.length ? ["--", ...labels.map(shell)] : []),
    ];
    $("command").textContent = words.join(" ");
    $("download").disabled = this.loading || n > MAX_IN_BROWSER;
    const sentences = [];
    if (labels.length > 1) sentences.push(`${labels.length} labels, at least ${Math.floor(n / labels.length)} images of each.`);
    if (this.sample) {
      const seconds = (n * this.sample.tries) / this.sample.rate;
      sentences.push(`About ${megabytes(this.size(n, format))}, in about ${duration(seconds)}.`);
    }
    if (n > MAX_IN_BROWSER) sentences.push("Too many for a browser: use the command line.");
    $("estimate").textContent = this.message ?? sentences.join(" ");
  }

  /** Show how a download goes in place of the estimate, until another set is chosen. */
  tell(message) {
    this.message = $("estimate").textContent = message;
  }

  size(n, format) {
    const { height, width, channels } = this.model.manifest;
    if (format === "npy") return n * height * width * channels;
    return n * (this.sample.bytes + { webdataset: 2000, zip: 250, parquet: 30 }[format]);
  }

  async download() {
    if (this.loading) return;
    const format = $("format").value;
    const body = this.request();
    this.stop = new AbortController();
    const { signal } = this.stop;
    const total = this.sample ? this.size(body.n, format) : 0;
    this.loading = $("download").disabled = true;
    $("cancel").hidden = $("progress").hidden = false;
    $("progress").value = 0;
    this.tell("Waiting for the first images.");
    const answer = await attempt($("estimate"), () =>
      request(`/generate?format=${format}`, { body, signal }),
    );
    if (!answer) this.tell($("estimate").textContent);
    // No resume after a lost connection: the command line does that.
    const parts = answer && (await this.receive(answer.body.getReader(), total).catch(() => null));
    if (signal.aborted) this.tell("Cancelled.");
    else if (parts === null) {
      this.tell("The connection was lost. The command line can resume a download; this button cannot.");
    } else if (parts) save(new Blob(parts), `${body.model}-${body.seed}.${SUFFIXES[format]}`);
    $("cancel").hidden = $("progress").hidden = true;
    this.loading = false;
    this.describe();
  }

  async receive(reader, total) {
    const parts = [];
    let bytes = 0;
    let shown = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      bytes += value.length;
      $("progress").value = Math.min(bytes / total, 1);
      if (performance.now() - shown > 1000) {
        shown = performance.now();
        this.tell(`${megabytes(bytes)} of about ${megabytes(total)}`);
      }
    }
    this.tell(`Done: ${megabytes(bytes)}.`);
    return parts;
  }
}
