// Interpolation between two pinned images: all frames are fetched once, then scrubbed or played.

import { $, make, png, save } from "./page.js";
import { attempt, blob, json, show } from "./server.js";

const STEPS = 64;
const FRAME_MS = 60;

export class Between {
  constructor() {
    this.frames = [];
    $("position").max = STEPS - 1;
    $("position").addEventListener("input", () => this.draw());
    $("play").addEventListener("click", () => this.play(!this.playing));
    for (const button of document.querySelectorAll("[data-film]")) {
      button.addEventListener("click", () => this.download(button.dataset.film));
    }
  }

  /** Show the interpolation between two ends; either may be missing. */
  start(model, start, end) {
    this.ready = this.load(model, start, end);
  }

  /** Play the film as soon as it is there. */
  async see() {
    await this.ready;
    $("film").scrollIntoView({ block: "nearest" });
    this.play(!$("film").hidden);
  }

  async load(model, start, end) {
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.play(false);
    this.model = model;
    const { width, height } = model.manifest;
    for (const [id, point] of [["pin-start", start], ["pin-end", end]]) {
      $(id).hidden = !point;
      if (!point) continue;
      const alt = `Image ${point.index} of seed ${point.seed}, ${point.label ?? "labels as drawn"}`;
      Object.assign($(id), { alt, width, height });
      show($(id), model.address(point));
    }
    $("pins").hidden = !start && !end;
    $("first-two").hidden = Boolean(start || end);
    $("film").hidden = true;
    const missing = start ? "end" : end ? "start" : "start or the end";
    $("between-hint").textContent = start && end ? "" : `Open an image and pin it as the ${missing}.`;
    if (!start || !end) return;
    this.body = { from: start, to: end, steps: STEPS, model: model.name, version: model.version };
    const rows = await attempt($("between-hint"), async () => {
      const answer = await json("/interpolate", { body: this.body, signal });
      return Promise.all(
        answer.images.map(async (row) => {
          const image = make("img", { src: png(row.data) });
          await image.decode();
          return { ...row, image };
        }),
      );
    });
    if (!rows || signal.aborted) return;
    this.frames = rows;
    Object.assign($("frame"), { width, height });
    $("film").hidden = false;
    this.draw();
  }

  draw() {
    const frame = this.frames[Number($("position").value)];
    if (!frame) return;
    $("frame").getContext("2d").drawImage(frame.image, 0, 0);
    const labels = Object.entries(frame.labels ?? {}).map(([name, value]) => {
      if (typeof value === "string") return `${name}: ${value}`;
      const shares = Object.entries(value).map(([v, share]) => `${Math.round(100 * share)} % ${v}`);
      return `${name}: ${shares.join(", ")}`;
    });
    $("position-said").textContent = `${Math.round(100 * frame.t)} %`;
    const text = [`${Math.round(100 * frame.t)} % of the way`, ...labels].join("; ");
    $("frame").setAttribute("aria-label", text);
    $("position").setAttribute("aria-valuetext", text);
    $("film-said").textContent = labels.join("; ");
  }

  play(on) {
    this.playing = on;
    $("play").textContent = on ? "Stop" : "Play";
    $("play").setAttribute("aria-pressed", String(on));
    if (!on) return;
    let shown = performance.now();
    const tick = (now) => {
      if (!this.playing) return;
      if (now - shown >= FRAME_MS) {
        shown = now;
        $("position").value = (Number($("position").value) + 1) % STEPS;
        this.draw();
      }
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  async download(format) {
    const buttons = [...document.querySelectorAll("[data-film]")];
    for (const button of buttons) button.disabled = true;
    const film = await attempt($("between-hint"), () =>
      blob(`/interpolate?format=${format}`, { body: { ...this.body, loop: true } }),
    );
    for (const button of buttons) button.disabled = false;
    if (film) save(film, `${this.model.name}-film.${format}`);
  }
}
