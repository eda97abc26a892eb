/* The page of `crnn-deploy serve`: images go in, each is shown with its text.

An item is one image of the page. Items wait in a queue, go to the server in groups, and come back with a result or with an
error. What comes from a file or from the server becomes text of the page and never HTML. */

const GROUP = 8; // images in one request
const GROUP_BYTES = 4 * 2 ** 20; // of one request, unless one image alone has more
const IN_FLIGHT = 3; // requests at a time
const TRIES = 5; // after an answer "overloaded"
const LONGEST_WAIT = 30; // seconds
const ENLARGED = 3; // times, at most, for small pictures
const TOKEN = "crnn-deploy token";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const options = page.options.elements;

let token = sessionStorage.getItem(TOKEN);
let models = [];
let items = []; // in the order they came
let waiting = []; // those of them that are to be sent
const requests = new Set(); // an AbortController each
let groupSize = GROUP; // halved when the server is overloaded, doubled when it answers
let locked = false; // until there is a token
let heldUntil = 0; // by performance.now()
let timer = 0; // ends the hold
let shown = 0; // timer of what is said
let changed = 0; // timer of changed options
let pasted = 0; // pictures without a name of their own
let unsaid = []; // items that are done and not yet told to a screen reader

// ---- the server

function ask(path, init) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { ...init, headers, cache: "no-store" });
}

async function loadModels() {
  let response;
  try {
    response = await ask("v1/models");
    if (response.ok) {
      models = (await response.json()).models;
    }
  } catch {
    return notice("The server cannot be reached; reload the page when it runs.");
  }
  if (response.status === 401) {
    return lock();
  }
  if (!response.ok) {
    return notice(`The server does not say which models it has (${response.status}).`);
  }
  notice("");
  const chosen = options.model.value;
  options.model.replaceChildren(...models.map(({ name }) => new Option(name, name, false, name === chosen)));
  showModel();
}

function lock() {
  page["token-help"].textContent = token
    ? "The server does not take this token. Ask the one who runs it for another."
    : "This server asks for a token. It is kept until this tab is closed.";
  locked = true;
  page["token-form"].hidden = false;
  page.token.focus();
}

page["token-form"].addEventListener("submit", async (event) => {
  event.preventDefault();
  token = page.token.value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) {
    page["token-help"].textContent = "A token has no spaces and none but ASCII characters.";
    return;
  }
  sessionStorage.setItem(TOKEN, token);
  page.token.value = "";
  page["token-form"].hidden = true;
  locked = false;
  page.choose.focus();
  await loadModels();
  pump();
});

// ---- options

function query() {
  const chosen = new URLSearchParams({ chars: "true" });
  for (const name of ["model", "decoder", "nbest", "rotate"]) {
    if (options[name].value) {
      chosen.set(name, options[name].value);
    }
  }
  return chosen;
}

/** What the chosen model is and allows. */
function showModel() {
  const model = models.find(({ name }) => name === options.model.value);
  if (model) {
    page.server.textContent = `${model.name}: ${model.alphabet_size} characters, file ${model.digest.slice(0, 8)}`;
    options.decoder.options[0].text = `Default (${model.decoder})`;
    options.decoder.querySelector("[value=beam]").disabled = options.nbest.disabled = model.output === "argmax";
    if (model.output === "argmax") {
      options.decoder.value = options.nbest.value = "";
    }
  }
  const address = new URL("v1/read", document.baseURI);
  const chosen = query();
  chosen.delete("chars");
  address.search = chosen;
  page.curl.textContent = `curl -F image=@word.png '${address}'`;
}

page.options.addEventListener("change", ({ target }) => {
  const model = models.find(({ name }) => name === options.model.value);
  const finds = options.decoder.value || model?.decoder;
  if (finds !== "beam" && options.nbest.value) {
    // only a beam search finds several texts
    if (target === options.nbest) {
      options.decoder.value = "beam";
    } else {
      options.nbest.value = "";
    }
  }
  showModel();
  clearTimeout(changed);
  changed = setTimeout(readAll, 150); // arrow keys pass several values
});
page.options.addEventListener("submit", (event) => event.preventDefault());

// ---- the queue

/** Read every image anew, as the options are now. */
function readAll() {
  for (const request of requests) {
    request.abort();
  }
  requests.clear();
  waiting = [];
  heldUntil = 0;
  queue(items);
}

/** Read some that failed or wait for the server's recovery, now. */
function readAgain(some) {
  heldUntil = 0;
  queue(some);
}

/** Put items that are in no request where they belong among those that wait. */
function queue(some) {
  for (const item of some) {
    item.tries = 0;
    item.again = false;
    show(item, "waiting", "Waiting");
  }
  const together = new Set([...waiting, ...some]);
  waiting = items.filter((item) => together.has(item));
  pump();
}

/** Put back at the front what was sent in vain. */
function putBack(group) {
  waiting.unshift(...group.filter(({ removed }) => !removed));
}

function pump() {
  clearTimeout(timer);
  const hold = heldUntil - performance.now();
  if (!locked && waiting.length && hold > 0) {
    timer = setTimeout(pump, hold);
  } else if (!locked) {
    while (requests.size < IN_FLIGHT && waiting.length) {
      send(nextGroup());
    }
  }
  report();
}

function nextGroup() {
  const group = [waiting.shift()];
  let bytes = group[0].file.size;
  while (!group[0].alone && waiting.length && !waiting[0].alone && group.length < groupSize) {
    bytes += waiting[0].file.size;
    if (bytes > GROUP_BYTES) {
      break;
    }
    group.push(waiting.shift());
  }
  return group;
}

async function send(group) {
  const request = new AbortController();
  requests.add(request);
  const body = new FormData();
  for (const item of group) {
    body.append("image", item.file, item.name);
    show(item, "reading", "Reading");
  }
  const begun = performance.now();
  try {
    const response = await ask(`v1/read?${query()}`, { method: "POST", body, signal: request.signal });
    const answer = await response.json().catch(() => ({}));
    if (!request.signal.aborted) {
      take(group, response, answer, performance.now() - begun);
    }
  } catch {
    // the server is away, or a file is
    const lost = await Promise.all(group.map(({ file }) => isLost(file)));
    if (!request.signal.aborted) {
      group.filter((_, at) => lost[at]).forEach((item) => fail(item, "This file can no longer be read from the disk"));
      postpone(group.filter((_, at) => !lost[at]), "The server cannot be reached", 1);
    }
  } finally {
    requests.delete(request);
    pump();
  }
}

/** What a server's answer means for the images that were sent. */
function take(group, response, answer, milliseconds) {
  const { status } = response;
  if ((response.ok || status === 422) && answer.results?.length === group.length) {
    groupSize = Math.min(GROUP, groupSize * 2);
    const { model, digest } = answer;
    group.forEach((item, at) => {
      item.result = answer.results[at];
      item.again = false;
      item.read = { model, digest, milliseconds, server: answer.milliseconds?.total, images: group.length };
      show(item, item.result.error === null ? "done" : "error", item.result.error ?? "");
    });
  } else if (status === 503 || status === 429) {
    postpone(group, "The server is busy", retryAfter(response));
  } else if (status === 401) {
    putBack(group);
    group.forEach((item) => show(item, "waiting", "Waiting for a token"));
    lock();
  } else if (status === 413 && group.length > 1) {
    group.forEach((item) => (item.alone = true));
    putBack(group);
  } else {
    group.forEach((item) => fail(item, answer.detail ?? `The server answered ${status} ${response.statusText}`));
    if (status === 404) {
      loadModels(); // one that was chosen is no longer served
    }
  }
}

/** Seconds that a server asks to wait. */
function retryAfter(response) {
  const said = response.headers.get("Retry-After") ?? "1";
  const seconds = /^\d+$/.test(said) ? Number(said) : (Date.parse(said) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0.5), LONGEST_WAIT) : 1;
}

/** Try a group again later, in smaller requests; an image that was tried often enough fails. */
function postpone(group, reason, seconds) {
  groupSize = Math.max(1, groupSize >> 1);
  const lasting = [];
  for (const item of group) {
    item.tries += 1;
    if (item.tries < TRIES) {
      lasting.push(item);
    } else {
      fail(item, `${reason}, ${TRIES} times in a row`);
    }
  }
  if (lasting.length) {
    const wait = Math.min(seconds * Math.max(...lasting.map((item) => item.tries)), LONGEST_WAIT);
    heldUntil = Math.max(heldUntil, performance.now() + wait * 1000);
    putBack(lasting);
    for (const item of lasting) {
      item.again = true;
      show(item, "waiting", `${reason}; tries again in ${Math.ceil(wait)} s (${item.tries} of ${TRIES - 1})`);
    }
  }
}

function isLost(file) {
  return file.slice(0, 1).arrayBuffer().then(() => false, () => true);
}

function fail(item, error) {
  item.result = { name: item.name, text: "", confidence: null, status: "error", error };
  item.read = {};
  item.again = true;
  show(item, "error", error);
}

// ---- images

function add(files) {
  const fresh = files.map((file) => ({ file, name: file.name, tries: 0 }));
  const cards = document.createDocumentFragment();
  for (const item of fresh) {
    cards.append(makeCard(item));
  }
  page.cards.append(cards);
  page.results.hidden = false;
  items.push(...fresh);
  queue(fresh);
}

function remove(item) {
  item.removed = true;
  URL.revokeObjectURL(item.image.src);
  items = items.filter((other) => other !== item);
  waiting = waiting.filter((other) => other !== item);
  unsaid = unsaid.filter((other) => other !== item);
  const next = item.card.nextElementSibling ?? item.card.previousElementSibling;
  (next?.querySelector(".remove") ?? page.choose).focus();
  item.card.remove();
  page.results.hidden = !items.length;
  report();
}

for (const [button, input] of [
  [page.choose, page.files],
  [page.photograph, page.camera],
]) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
}

addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    add(files.map((file) => new File([file], pastedName(file), { type: file.type })));
  } else if (event.target !== page.token) {
    say("There is no image in the clipboard.");
  }
});

/** A copied picture has no name of its own: browsers call each of them image.png. */
function pastedName({ name }) {
  if (name !== "image.png") {
    return name;
  }
  pasted += 1;
  return `pasted-${pasted}.png`;
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", ({ relatedTarget }) => {
  document.body.classList.toggle("dragging", relatedTarget !== null);
});
addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const { files, items: dropped } = event.dataTransfer;
  const entries = [...dropped].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
  const found = entries.some((entry) => entry.isDirectory) ? await filesBelow(entries) : [...files];
  if (found.length) {
    add(found);
  } else {
    say("No image was dropped.");
  }
});

/** The files of dropped folders, in the order of their names. */
async function filesBelow(entries) {
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) {
      found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    } else {
      const reader = entry.createReader();
      const inside = [];
      for (let part = [null]; part.length; inside.push(...part)) {
        part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
      }
      inside.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
      found.push(...(await filesBelow(inside)));
    }
  }
  return found;
}

// ---- cards

function makeCard(item) {
  const card = page.card.content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  item.card = card;
  item.parts = { text: part("text"), note: part("note"), figures: part("figures"), boxes: part("boxes") };
  item.image = card.querySelector("img");
  part("name").textContent = part("name").title = item.name;
  item.image.alt = item.name;
  item.image.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = item.image;
    const frame = part("frame").style;
    frame.width = `min(${width * ENLARGED}px, ${(14 * width) / height}rem)`;
    frame.aspectRatio = `${width} / ${height}`;
    item.parts.boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawBoxes(item);
  });
  item.image.addEventListener("error", () => {
    part("frame").hidden = true;
    part("no-picture").hidden = false;
  });
  item.image.src = URL.createObjectURL(item.file);
  part("again").addEventListener("click", () => readAgain([item]));
  part("copy").addEventListener("click", () => copy(item.result.text, "the text"));
  part("remove").addEventListener("click", () => remove(item));
  for (const action of ["again", "copy", "remove"]) {
    part(action).setAttribute("aria-label", `${part(action).title}: ${item.name}`);
  }
  item.parts.text.addEventListener("keydown", (event) => moveAmongChars(item, event));
  for (const kind of ["pointerover", "focusin"]) {
    card.addEventListener(kind, ({ target }) => activate(item, target.dataset.at));
  }
  for (const kind of ["pointerleave", "focusout"]) {
    card.addEventListener(kind, () => activate(item, undefined));
  }
  return card;
}

/** An item's state and what there is to say of it. */
function show(item, state, note) {
  const { card, parts } = item;
  if (item.removed) {
    return;
  }
  item.state = state;
  card.dataset.state = state;
  parts.note.textContent = note;
  card.querySelector(".again").hidden = !item.again;
  card.querySelector(".copy").hidden = state !== "done";
  if (state === "done" || state === "error") {
    unsaid.push(item);
    showText(item);
    showAlternatives(item);
    drawBoxes(item);
    parts.figures.textContent = figures(item);
  }
}

function showText({ result, parts, name }) {
  const { text, chars } = result;
  const asOne = chars?.length && chars.map(({ char }) => char).join("") === text;
  if (asOne) {
    parts.text.replaceChildren(
      ...chars.map(({ char, confidence }, at) => {
        const span = made("span", `char ${grade(confidence)}`, char);
        span.dataset.at = at;
        span.dataset.number = Math.floor(confidence * 100);
        span.title = told(char, confidence);
        span.tabIndex = at ? -1 : 0;
        span.setAttribute("role", "option");
        span.setAttribute("aria-label", span.title);
        return span;
      }),
    );
    parts.text.setAttribute("role", "listbox");
    parts.text.setAttribute("aria-orientation", "horizontal");
    parts.text.setAttribute("aria-label", `Characters of ${name}: ${text}`);
  } else {
    parts.text.replaceChildren(...(text || result.error !== null ? [text] : [made("span", "empty", "No text found")]));
    for (const attribute of ["role", "aria-orientation", "aria-label"]) {
      parts.text.removeAttribute(attribute);
    }
  }
}

function showAlternatives({ result, card }) {
  const details = card.querySelector(".alternatives");
  const found = result.alternatives ?? [];
  details.hidden = !found.length;
  details.firstElementChild.textContent = `${counted(found.length, "likeliest text")} and their log scores`;
  details.lastElementChild.replaceChildren(
    ...found.map(({ text, score }) => {
      const row = made("li", "", "");
      row.append(made("bdi", "", text), made("span", "", score.toFixed(2).replace("-", "\u2212")));
      return row;
    }),
  );
}

/** Boxes of the characters over the picture: the columns in which the network saw each. */
function drawBoxes({ result, image, parts }) {
  const height = image.naturalHeight;
  parts.boxes.replaceChildren(
    ...(height ? (result?.chars ?? []) : []).map((char, at) => {
      const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const { left, right, top = 0, bottom = height } = char;
      const sides = { x: left, y: top, width: right - left, height: bottom - top };
      for (const [name, value] of Object.entries(sides)) {
        box.setAttribute(name, value);
      }
      box.setAttribute("class", grade(char.confidence));
      box.dataset.at = at;
      return box;
    }),
  );
}

function figures({ result, read }) {
  if (result.confidence === null) {
    return "";
  }
  const said = [percent(result.confidence)];
  if (result.rotated) {
    said.push(result.rotated === "column" ? "a column" : `turned ${result.rotated}\u00b0`);
  }
  const milliseconds = read.server ?? read.milliseconds;
  const time = `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
  said.push(read.images > 1 ? `${read.images} images in ${time}` : time);
  return said.join(" \u00b7 ");
}

/** Make one character stand out, in the text and in the picture, and say how sure it is; none for undefined. */
function activate(item, at) {
  if (item.active === at || item.state !== "done") {
    return;
  }
  for (const element of item.card.querySelectorAll("[data-at]")) {
    element.classList.toggle("active", element.dataset.at === at);
    if (element.role === "option") {
      element.setAttribute("aria-selected", element.dataset.at === at);
    }
  }
  item.active = at;
  const char = item.result.chars?.[at];
  item.parts.figures.textContent = char ? told(char.char, char.confidence) : figures(item);
}

function moveAmongChars({ parts }, event) {
  const chars = [...parts.text.querySelectorAll(".char")];
  const at = chars.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: chars.length - 1 }[event.key];
  if (at >= 0 && chars[to]) {
    event.preventDefault();
    chars[at].tabIndex = -1;
    chars[to].tabIndex = 0;
    chars[to].focus();
  }
}

function grade(confidence) {
  return confidence >= 0.95 ? "sure" : confidence >= 0.8 ? "likely" : confidence >= 0.5 ? "unsure" : "doubtful";
}

function told(char, confidence) {
  return `${char === " " ? "space" : char}: ${percent(confidence)}`;
}

/** Cut, not rounded: 99.97 % is no certainty. */
function percent(value) {
  return `${(Math.floor(value * 1000) / 10).toFixed(1)} %`;
}

function counted(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

function made(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// ---- all images

function report() {
  const settled = items.filter(({ state }) => state === "done" || state === "error");
  const failed = settled.filter(({ state }) => state === "error");
  const errors = failed.length ? `, ${failed.length} with an error` : "";
  page.summary.textContent = `${settled.length - failed.length} of ${counted(items.length, "image")} read${errors}`;
  page.progress.max = items.length || 1;
  page.progress.value = settled.length;
  page.progress.classList.toggle("done", settled.length === items.length);
  page["all-again"].hidden = !items.some(({ again }) => again);
  if (unsaid.length && settled.length === items.length) {
    const [{ name, result }] = unsaid;
    page.said.textContent =
      unsaid.length === 1 ? `${name}: ${result.error ?? (result.text || "No text found")}` : page.summary.textContent;
    unsaid = [];
  }
}

page["all-again"].addEventListener("click", () => {
  readAgain(items.filter(({ again }) => again));
  page.choose.focus();
});

page.clear.addEventListener("click", () => {
  for (const request of requests) {
    request.abort();
  }
  requests.clear();
  for (const item of items) {
    item.removed = true;
    URL.revokeObjectURL(item.image.src);
  }
  [items, waiting, unsaid] = [[], [], []];
  page.cards.replaceChildren();
  page.results.hidden = true;
  page.choose.focus();
  say("All images are removed.");
});

page["show-boxes"].addEventListener("change", ({ target }) => page.cards.classList.toggle("without-boxes", !target.checked));
page["show-numbers"].addEventListener("change", ({ target }) => page.cards.classList.toggle("with-numbers", target.checked));

const COLUMNS = ["name", "text", "confidence", "status", "error"];
const ESCAPES = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };

/** Results of all images that are read or have an error. */
function results() {
  return items
    .filter(({ state }) => state === "done" || state === "error")
    .map(({ name, result, read: { model, digest } }) => ({ ...result, name, model, digest }));
}

/** As `infer --format tsv` writes them. */
function tsv() {
  const cells = ({ name, text, confidence, status, error }) => [name, text, confidence?.toFixed(6) ?? "", status, error ?? ""];
  const rows = [COLUMNS, ...results().map(cells)];
  const escaped = (cell) => cell.replace(/[\\\t\n\r]/g, (sign) => ESCAPES[sign]);
  return rows.map((row) => `${row.map(escaped).join("\t")}\n`).join("");
}

page["copy-tsv"].addEventListener("click", () => copy(tsv(), counted(results().length, "row")));
page["copy-json"].addEventListener("click", () =>
  copy(`${JSON.stringify(results(), null, 1)}\n`, counted(results().length, "result")),
);

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // browsers give their clipboard to https and to this machine alone
    const area = made("textarea", "unseen", text);
    const before = document.activeElement;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    before.focus();
    if (!copied) {
      return say("This browser does not let the page copy.");
    }
  }
  say(`Copied ${what}.`);
}

/** Say what came of an action, in sight for a moment. */
function say(text) {
  clearTimeout(shown);
  page.toast.textContent = text;
  shown = setTimeout(() => (page.toast.textContent = ""), 4000);
}

function notice(text) {
  page.notice.textContent = text;
  page.notice.hidden = !text;
}

showModel();
loadModels();
