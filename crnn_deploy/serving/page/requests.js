/* Requests for texts: items wait in a queue, go to the server in groups, and come back with a result or with an error. */

const GROUP = 8; // images in one request
const GROUP_BYTES = 4 * 2 ** 20; // of one request, unless one image alone has more
const IN_FLIGHT = 3; // requests at a time
const TRIES = 5; // after an answer "overloaded"
const LONGEST_WAIT = 30; // seconds

/** Items in the order of their `number`; each has a `file` and a `name`, and gets `result`, `read`, `tries` and `again`. */
export class Queue {
  #page;
  #waiting = [];
  #requests = new Set(); // an AbortController each
  #groupSize = GROUP; // halved when the server is overloaded, doubled when it answers
  #locked = false; // until there is a token
  #heldUntil = 0; // by performance.now()
  #timer = 0; // ends the hold

  /** page: `send(body, signal)` sends a request, `show(item, state, note)` shows one item, `report()` says how many are read,
  `lock()` asks for a token, and `learn(answer)` sees whether it knows the model of an answer. */
  constructor(page) {
    this.#page = page;
  }

  /** Read some items that are in no request, at once even where the server asked to wait. */
  readNow(some) {
    this.#heldUntil = 0;
    this.add(some);
  }

  /** Put items that are in no request where they belong among those that wait. */
  add(some) {
    for (const item of some) {
      item.tries = 0;
      item.again = false;
      this.#page.show(item, "waiting", "Waiting");
    }
    this.#wait(some);
    this.#pump();
  }

  /** Forget an item, even one that is in a request. */
  remove(item) {
    item.removed = true;
    this.#waiting = this.#waiting.filter((other) => other !== item);
  }

  /** Forget all items. */
  clear() {
    for (const request of this.#requests) {
      request.abort();
    }
    this.#requests.clear();
    this.#waiting = [];
  }

  lock() {
    this.#locked = true;
  }

  unlock() {
    this.#locked = false;
    this.#pump();
  }

  #wait(some) {
    const all = new Set([...this.#waiting, ...some.filter(({ removed }) => !removed)]);
    this.#waiting = [...all].sort((one, other) => one.number - other.number);
  }

  #pump() {
    clearTimeout(this.#timer);
    const hold = this.#heldUntil - performance.now();
    if (!this.#locked && this.#waiting.length && hold > 0) {
      this.#timer = setTimeout(() => this.#pump(), hold);
    } else if (!this.#locked) {
      while (this.#requests.size < IN_FLIGHT && this.#waiting.length) {
        this.#send(this.#nextGroup());
      }
    }
    this.#page.report();
  }

  #nextGroup() {
    const waiting = this.#waiting;
    const group = [waiting.shift()];
    let bytes = group[0].file.size;
    while (!group[0].alone && waiting.length && !waiting[0].alone && group.length < this.#groupSize) {
      bytes += waiting[0].file.size;
      if (bytes > GROUP_BYTES) {
        break;
      }
      group.push(waiting.shift());
    }
    return group;
  }

  async #send(group) {
    const request = new AbortController();
    this.#requests.add(request);
    const body = new FormData();
    for (const item of group) {
      body.append("image", item.file, item.name);
      this.#page.show(item, "reading", "Reading");
    }
    const begun = performance.now();
    try {
      const response = await this.#page.send(body, request.signal);
      const answer = await response.json().catch(() => ({}));
      if (!request.signal.aborted) {
        this.#take(group, response, answer, performance.now() - begun);
      }
    } catch {
      // the server is away, or a file is
      const lost = await Promise.all(group.map(({ file }) => isLost(file)));
      if (!request.signal.aborted) {
        for (const item of group.filter((_, at) => lost[at])) {
          this.#fail(item, "This file can no longer be read from the disk");
        }
        this.#postpone(group.filter((_, at) => !lost[at]), "The server cannot be reached", 1);
      }
    } finally {
      this.#requests.delete(request);
      this.#pump();
    }
  }

  /** What a server's answer means for the images that were sent. */
  #take(group, response, answer, milliseconds) {
    const { status } = response;
    if ((response.ok || status === 422) && answer.results?.length === group.length) {
      this.#groupSize = Math.min(GROUP, this.#groupSize * 2);
      const { model, digest } = answer;
      group.forEach((item, at) => {
        item.result = answer.results[at];
        item.again = false;
        item.read = { model, digest, milliseconds, server: answer.milliseconds?.total, images: group.length };
        this.#page.show(item, item.result.error === null ? "done" : "error", item.result.error ?? "");
      });
      this.#page.learn(answer);
    } else if (status === 503 || status === 429) {
      this.#postpone(group, "The server is busy", retryAfter(response));
    } else if (status === 401) {
      this.#wait(group);
      group.forEach((item) => this.#page.show(item, "waiting", "Waiting for a token"));
      this.#page.lock();
    } else if (status === 413 && group.length > 1) {
      group.forEach((item) => (item.alone = true));
      this.#wait(group);
    } else {
      const error = answer.detail ?? `The server answered ${status} ${response.statusText}`;
      group.forEach((item) => this.#fail(item, error));
      if (status === 404) {
        this.#page.learn({}); // the chosen model is no longer served
      }
    }
  }

  /** Try a group again later, in smaller requests; an image that was tried often enough fails. */
  #postpone(group, reason, seconds) {
    this.#groupSize = Math.max(1, this.#groupSize >> 1);
    const lasting = [];
    for (const item of group) {
      item.tries += 1;
      if (item.tries < TRIES) {
        lasting.push(item);
      } else {
        this.#fail(item, `${reason}, ${TRIES} times in a row`);
      }
    }
    if (lasting.length) {
      const wait = Math.min(seconds * Math.max(...lasting.map(({ tries }) => tries)), LONGEST_WAIT);
      this.#heldUntil = Math.max(this.#heldUntil, performance.now() + wait * 1000);
      this.#wait(lasting);
      for (const item of lasting) {
        item.again = true;
        this.#page.show(item, "waiting", `${reason}; tries again in ${Math.ceil(wait)} s (${item.tries} of ${TRIES - 1})`);
      }
    }
  }

  #fail(item, error) {
    item.result = { name: item.name, text: "", confidence: null, status: "error", error };
    item.read = {};
    item.again = true;
    this.#page.show(item, "error", error);
  }
}

/** Seconds that a server asks to wait. */
function retryAfter(response) {
  const said = response.headers.get("Retry-After") ?? "1";
  const seconds = /^\d+$/.test(said) ? Number(said) : (Date.parse(said) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0.5), LONGEST_WAIT) : 1;
}

function isLost(file) {
  return file.slice(0, 1).arrayBuffer().then(() => false, () => true);
}
