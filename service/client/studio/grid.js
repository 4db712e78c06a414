// Endless grid of images of a seed; scrolling loads more.

import { $, make } from "./page.js";
import { attempt, json, show } from "./server.js";

const FIRST = 24;
const MORE = 48;
const AHEAD = 300; // pixels below the visible part

export class Grid {
  /** `open(index)`: an image was chosen. `link(index)`: URL that opens it. */
  constructor(open, link) {
    this.open = open;
    this.link = link;
    this.near = new IntersectionObserver(([entry]) => entry.isIntersecting && this.grow(MORE), {
      rootMargin: `${AHEAD}px`,
    });
    this.near.observe($("more"));
    $("grid").addEventListener("keydown", (event) => this.move(event));
  }

  /** Index of the image `by` places from another; null if there is none yet. */
  beside(index, by) {
    const found = this.indices.indexOf(index);
    if (found >= 0 && this.indices[found + by] !== undefined) return this.indices[found + by];
    const verified = Boolean(this.model.request(this.state).verify);
    return verified || index + by < 0 ? null : index + by;
  }

  /** Arrow keys move between images; for the Tab key, the grid is one stop. */
  move(event) {
    const links = [...$("grid").querySelectorAll("a")];
    const at = links.indexOf(event.target.closest("a"));
    const columns = links.filter(({ offsetTop }) => offsetTop === links[0].offsetTop).length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const target = links[at + steps[event.key]];
    if (!target) return;
    event.preventDefault();
    links[at].tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  }

  /** Clear the grid and load the first images. */
  start(model, state) {
    this.stop?.abort();
    this.stop = new AbortController();
    Object.assign(this, { model, state: structuredClone(state), next: 0, tried: 0, indices: [] });
    this.growing = this.ended = false;
    $("grid").inert = true; // the old images stay until the new ones come
    const images = $("images");
    images.scrollTop = 0;
    if (images.getBoundingClientRect().top < 0) images.scrollIntoView();
    this.grow(FIRST);
  }

  async grow(count) {
    if (!this.model || this.growing || this.ended) return;
    this.growing = true;
    const { signal } = this.stop;
    const rows = await attempt($("found"), () => this.rows(count, signal));
    if (signal.aborted) return;
    this.growing = false;
    this.ended = !rows;
    if ($("grid").inert) $("grid").replaceChildren();
    $("grid").inert = false;
    for (const { index, url } of rows ?? []) this.add(index, url);
    if (rows && this.tried) {
      $("found").textContent = `${this.indices.length} confirmed, ${this.tried} checked`;
    }
    // In a tall window, the end of the grid stays visible and no scrolling loads more.
    const { top } = $("more").getBoundingClientRect();
    if (rows && top < innerHeight + AHEAD) requestAnimationFrame(() => this.grow(MORE));
  }

  /** The next images. Only verified ones need a request; others have known addresses. */
  async rows(count, signal) {
    const first = this.next;
    if (!this.model.request(this.state).verify) {
      this.next += count;
      return Array.from({ length: count }, (_, i) => ({
        index: first + i,
        url: this.model.address(this.model.point(this.state, first + i)),
      }));
    }
    const body = { ...this.model.request(this.state), n: count, offset: first };
    const answer = await json("/generate", { body, signal });
    this.next = answer.images.at(-1).index + 1;
    this.tried += answer.tried;
    return answer.images;
  }

  add(index, url) {
    const labels = this.model.phrase(this.state.labels) ?? "labels as drawn";
    const { width, height } = this.model.manifest;
    const image = make("img", { alt: `Image ${index}, ${labels}`, width, height });
    const anchor = make("a", { href: this.link(index), tabIndex: this.indices.length ? -1 : 0 }, image);
    this.indices.push(index);
    anchor.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.open(index);
    });
    $("grid").append(make("li", {}, anchor));
    show(image, url);
  }
}
